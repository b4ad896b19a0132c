//! The file that a claim and its proof are written to.
//!
//! The first line is a [`Header`], JSON. Behind it, where the method needs one, stands the proof's body: the bytes of a
//! [`Forest`](super::sets::Forest).

use super::{Certified, Claim, Ranges, sets::Forest};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::tensor::write_file;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;

/// The first field of every certificate.
const FORMAT: &str = "certificate 1";

/// By which method a claim was proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Inputs one by one, these of them: of all others nothing is said.
    Enumeration(Ranges),
    /// Sets of inputs ([`sets`](super::sets), [`cells`](super::sets) of words), divided until a bound decides.
    Sets,
}

impl Method {
    /// Of an enumeration, which inputs were gone through.
    pub fn ranges(&self) -> Option<&Ranges> {
        match self {
            Method::Enumeration(ranges) => Some(ranges),
            Method::Sets => None,
        }
    }
}

/// What a certificate says, and of what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The format of the file.
    pub pathsum: String,
    /// [`hash`] of the model.
    pub weights: String,
    /// What is claimed.
    pub claim: Claim,
    /// How it was proved.
    pub method: Method,
    /// The figures.
    pub certified: Certified,
    /// What `λ`s are counted in, where there is a body.
    pub step: f64,
    /// Bytes of the body.
    pub body: usize,
}

/// A claim about a model, with its figures and what is needed to check them.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificate {
    /// What is said.
    pub header: Header,
    /// What the proof needs beside.
    pub body: Vec<u8>,
}

/// The SHA-256 of a model: of its configuration as TransformerLens writes it, and of every parameter's name, shape and
/// values as f64, so that the same numbers in f32 have the same hash.
pub fn hash(model: &Model<f64>) -> String {
    let mut sha = Sha256::new();
    // Each part with its length, so that no two lists of parts are the same bytes.
    let mut add = |bytes: &[u8]| {
        sha.update((bytes.len() as u64).to_le_bytes());
        sha.update(bytes);
    };
    add(model.config().to_json().as_bytes());
    for (name, tensor) in model.weights().tensors() {
        add(name.as_bytes());
        add(format!("{:?}", tensor.shape()).as_bytes());
        add(&tensor
            .data()
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect::<Vec<u8>>());
    }
    sha.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl Certificate {
    /// Of an enumeration: the figures, and which inputs they are of, are all there is.
    pub fn enumeration(
        model: &Model<f64>,
        claim: Claim,
        certified: Certified,
        ranges: Ranges,
    ) -> Certificate {
        let method = Method::Enumeration(ranges);
        Self::with_body(model, claim, certified, method, 0.0, Vec::new())
    }

    /// Of sets: the figures, and the tree of what is proved.
    pub fn sets(
        model: &Model<f64>,
        claim: Claim,
        certified: Certified,
        forest: &Forest,
    ) -> Certificate {
        let body = forest.write();
        Self::with_body(model, claim, certified, Method::Sets, forest.step, body)
    }

    fn with_body(
        model: &Model<f64>,
        claim: Claim,
        certified: Certified,
        method: Method,
        step: f64,
        body: Vec<u8>,
    ) -> Certificate {
        let header = Header {
            pathsum: FORMAT.into(),
            weights: hash(model),
            claim,
            method,
            certified,
            step,
            body: body.len(),
        };
        Certificate { header, body }
    }

    /// The bytes of its file.
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(&self.header).expect("a header is always JSON");
        bytes.push(b'\n');
        bytes.extend(&self.body);
        bytes
    }

    /// From the bytes of a file.
    ///
    /// # Errors
    /// When they are none of a certificate.
    pub fn read(bytes: &[u8]) -> Result<Certificate> {
        let wrong = |reason: String| Error::Experiment(format!("not a certificate: {reason}"));
        let end = bytes
            .iter()
            .position(|&b| b == b'\n')
            .unwrap_or(bytes.len());
        let (line, rest) = bytes.split_at(end);
        let header: Header = serde_json::from_slice(line).map_err(|e| wrong(e.to_string()))?;
        if header.pathsum != FORMAT {
            let found = &header.pathsum;
            return Err(wrong(format!(
                "the format is `{found}`, expected `{FORMAT}`"
            )));
        }
        let body = rest.get(1..).unwrap_or_default();
        if body.len() != header.body {
            return Err(wrong(format!(
                "{} bytes behind the first line, expected {}",
                body.len(),
                header.body
            )));
        }
        let body = body.to_vec();
        Ok(Certificate { header, body })
    }

    /// From a file.
    ///
    /// # Errors
    /// When it cannot be read, or holds no certificate.
    pub fn open(path: impl AsRef<Path>) -> Result<Certificate> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|error| Error::Io {
            path: path.into(),
            error,
        })?;
        Self::read(&bytes).map_err(|e| Error::Format {
            path: path.into(),
            reason: e.to_string(),
        })
    }

    /// Into a file, which appears whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write_file(path, &self.write())
    }
}
