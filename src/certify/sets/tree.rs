//! What was found of each root, and how it is written.

use crate::error::{Error, Result};

/// A rival that is beaten on a whole node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beaten {
    /// Its class.
    pub rival: usize,
    /// By head `λ`, in the certificate's steps; empty for the mean of `g`, weighted by `e`.
    pub lambda: Vec<i16>,
}

/// What becomes of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is left to prove: all rivals are beaten here or above.
    Right,
    /// A rival beats the right class on all of it.
    Wrong(Beaten),
    /// Not decided.
    Open,
    /// Divided by how often a token, of a group and a place in it, is chosen: never, once, and so on; parts without inputs
    /// left out.
    Branch((usize, usize), Vec<InputSet>),
}

/// A set of inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputSet {
    /// What is proved of all of it.
    pub proofs: Vec<Beaten>,
    /// What becomes of the rest.
    pub decision: Decision,
}

/// The nodes of every answer's roots.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Forest {
    /// By answer, and by root in the order of `Problem::roots`; `None` where it was not begun.
    pub answers: Vec<Vec<Option<InputSet>>>,
    /// What `λ`s are counted in: a power of two.
    pub step: f64,
}

/// What a node's first number says in its two lowest bits; the others count its proofs.
const RIGHT: usize = 0;
const WRONG: usize = 1;
const OPEN: usize = 2;
const BRANCH: usize = 3;

/// Which `λ` a proof has, as its number modulo three says: the mean, that of the rival's proof before it in the tree, or
/// its own, which follows.
const MEAN: usize = 0;
const AS_BEFORE: usize = 1;
const OWN: usize = 2;

/// By rival, the `λ` of the last proof of it.
type Before = std::collections::BTreeMap<usize, Vec<i16>>;

/// Reads bytes from the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8> {
        let (&first, rest) = self.0.split_first().ok_or_else(damaged)?;
        self.0 = rest;
        Ok(first)
    }

    /// Seven bits a byte, the lowest first; the highest bit says that there are more.
    fn number(&mut self) -> Result<usize> {
        let mut n = 0usize;
        for shift in (0..28).step_by(7) {
            let byte = self.byte()?;
            n |= usize::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(n);
            }
        }
        Err(damaged())
    }
}

fn damaged() -> Error {
    Error::Experiment(
        "the certificate's body is damaged: it ends early, or a number is too large".into(),
    )
}

fn put(n: usize, to: &mut Vec<u8>) {
    let mut n = n;
    while n > 127 {
        to.push((n & 127) as u8 | 128);
        n >>= 7;
    }
    to.push(n as u8);
}

impl Beaten {
    /// Its `λ` by head, where it is not the mean.
    pub(super) fn lambda(&self, step: f64) -> Vec<f64> {
        self.lambda.iter().map(|&s| f64::from(s) * step).collect()
    }

    fn write(&self, to: &mut Vec<u8>, before: &mut Before) {
        let which = match self.lambda.is_empty() {
            true => MEAN,
            false if before.get(&self.rival) == Some(&self.lambda) => AS_BEFORE,
            false => OWN,
        };
        put(3 * self.rival + which, to);
        if which == OWN {
            to.extend(self.lambda.iter().flat_map(|l| l.to_le_bytes()));
            before.insert(self.rival, self.lambda.clone());
        }
    }

    fn read(from: &mut Reader<'_>, heads: usize, before: &mut Before) -> Result<Beaten> {
        let n = from.number()?;
        let rival = n / 3;
        let lambda = match n % 3 {
            MEAN => Vec::new(),
            AS_BEFORE => before.get(&rival).cloned().ok_or_else(damaged)?,
            _ => {
                let mut one = || Ok(i16::from_le_bytes([from.byte()?, from.byte()?]));
                let lambda = (0..heads).map(|_| one()).collect::<Result<Vec<i16>>>()?;
                before.insert(rival, lambda.clone());
                lambda
            }
        };
        Ok(Beaten { rival, lambda })
    }
}

impl InputSet {
    /// A node of which nothing is known.
    pub fn open() -> InputSet {
        InputSet {
            proofs: Vec::new(),
            decision: Decision::Open,
        }
    }

    /// Whether anything is decided of the inputs below.
    fn decides(&self) -> bool {
        match &self.decision {
            Decision::Right | Decision::Wrong(_) => true,
            Decision::Open => false,
            Decision::Branch(_, children) => children.iter().any(InputSet::decides),
        }
    }

    fn write(&self, to: &mut Vec<u8>, before: &mut Before) {
        if !self.decides() {
            return put(OPEN, to);
        }
        let kind = match &self.decision {
            Decision::Right => RIGHT,
            Decision::Wrong(_) => WRONG,
            Decision::Open => OPEN,
            Decision::Branch(..) => BRANCH,
        };
        put(kind + 4 * self.proofs.len(), to);
        self.proofs.iter().for_each(|proof| proof.write(to, before));
        match &self.decision {
            Decision::Right | Decision::Open => {}
            Decision::Wrong(proof) => proof.write(to, before),
            Decision::Branch((group, place), children) => {
                put(*group, to);
                put(*place, to);
                put(children.len(), to);
                children.iter().for_each(|child| child.write(to, before));
            }
        }
    }

    fn read(
        from: &mut Reader<'_>,
        heads: usize,
        depth: usize,
        before: &mut Before,
    ) -> Result<InputSet> {
        // A branch decides a token: there are not more below one another than a vocabulary has.
        const DEEPEST: usize = 1 << 10;
        let first = from.number()?;
        let proofs = (0..first / 4).map(|_| Beaten::read(from, heads, before));
        let proofs = proofs.collect::<Result<_>>()?;
        let decision = match first % 4 {
            RIGHT => Decision::Right,
            WRONG => Decision::Wrong(Beaten::read(from, heads, before)?),
            OPEN => Decision::Open,
            _ if depth < DEEPEST => {
                let token = (from.number()?, from.number()?);
                let count = from.number()?;
                let children = (0..count).map(|_| InputSet::read(from, heads, depth + 1, before));
                Decision::Branch(token, children.collect::<Result<_>>()?)
            }
            _ => return Err(damaged()),
        };
        Ok(InputSet { proofs, decision })
    }
}

impl Forest {
    /// Nothing begun, for so many roots by answer; `λ`s are no larger than `most`.
    pub fn new(roots: &[usize], most: f64) -> Forest {
        // A power of two, so that steps are exact.
        let step = 2f64.powi(
            (most / f64::from(i16::MAX))
                .log2()
                .ceil()
                .clamp(-1000.0, 1000.0) as i32,
        );
        Forest {
            answers: roots.iter().map(|&n| vec![None; n]).collect(),
            step,
        }
    }

    /// In bytes: by answer and root 0, or 1 and the node, in the order of [`Forest::answers`]. Of nodes below which nothing
    /// is decided only that is written.
    pub fn write(&self) -> Vec<u8> {
        let mut to = Vec::new();
        for root in self.answers.iter().flatten() {
            match root {
                None => to.push(0),
                Some(node) => {
                    to.push(1);
                    node.write(&mut to, &mut Before::new());
                }
            }
        }
        to
    }

    /// From bytes, for so many roots by answer.
    ///
    /// # Errors
    /// When they are not such bytes, or there are more or fewer of them.
    pub fn read(bytes: &[u8], step: f64, roots: &[usize], heads: usize) -> Result<Forest> {
        let mut from = Reader(bytes);
        let mut answers = Vec::new();
        for &n in roots {
            let root = |_| match from.byte()? {
                0 => Ok(None),
                1 => InputSet::read(&mut from, heads, 0, &mut Before::new()).map(Some),
                _ => Err(damaged()),
            };
            answers.push((0..n).map(root).collect::<Result<_>>()?);
        }
        match from.0.is_empty() {
            true => Ok(Forest { answers, step }),
            false => Err(damaged()),
        }
    }
}
