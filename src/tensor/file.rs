//! Tensors in files: safetensors, read and written.

use super::{FileBytes, Narrow, Precision, Scalar, Tensor};
use crate::error::{Error, Result};
use half::{bf16, f16};
use safetensors::tensor::{TensorView, serialize};
use safetensors::{SafeTensorError, SafeTensors};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

const _: () = assert!(
    cfg!(target_endian = "little"),
    "files are read and written as little-endian memory"
);

/// The element types that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

impl Dtype {
    /// Whether this is a floating-point type.
    pub fn is_float(self) -> bool {
        matches!(self, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16)
    }

    fn from_safetensors(dtype: safetensors::Dtype) -> Option<Self> {
        use safetensors::Dtype as S;
        Some(match dtype {
            S::F64 => Dtype::F64,
            S::F32 => Dtype::F32,
            S::F16 => Dtype::F16,
            S::BF16 => Dtype::BF16,
            S::I64 => Dtype::I64,
            S::I32 => Dtype::I32,
            S::I16 => Dtype::I16,
            S::I8 => Dtype::I8,
            S::U64 => Dtype::U64,
            S::U32 => Dtype::U32,
            S::U16 => Dtype::U16,
            S::U8 => Dtype::U8,
            S::BOOL => Dtype::Bool,
            _ => return None,
        })
    }
}

/// One tensor as a file stores it.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    /// In which of the files its bytes are, and where: little-endian, row-major.
    file: usize,
    bytes: std::ops::Range<usize>,
}

/// Named tensors as a file holds them, or several files together, read one by one.
pub struct TensorFile {
    files: Vec<FileBytes>,
    tensors: BTreeMap<String, Stored>,
    /// Tensors of a type that cannot be read; asking for one is an error, their presence is not.
    foreign: BTreeMap<String, String>,
}

impl TensorFile {
    /// Opens a safetensors file; its header is checked, its values are read when asked for.
    ///
    /// # Errors
    /// When the file cannot be opened or is not a sound safetensors file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::parse(FileBytes::open(path)?).map_err(|reason| Error::format(path, reason))
    }

    /// As [`TensorFile::open`], from bytes in memory.
    ///
    /// # Errors
    /// When the bytes are not a sound safetensors file; `name` stands for the path in the message.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self> {
        Self::parse(FileBytes::Read(bytes)).map_err(|reason| Error::format(Path::new(name), reason))
    }

    fn parse(bytes: FileBytes) -> Result<Self, String> {
        if bytes.is_empty() {
            return Err("is empty, expected a safetensors file".into());
        }
        let parsed = SafeTensors::deserialize(&bytes)
            .map_err(|e| format!("not a sound safetensors file: {e}"))?;
        let mut tensors = BTreeMap::new();
        let mut foreign = BTreeMap::new();
        for (name, view) in parsed.iter() {
            let Some(dtype) = Dtype::from_safetensors(view.dtype()) else {
                foreign.insert(name.to_string(), format!("{:?}", view.dtype()));
                continue;
            };
            let start = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
            let range = start..start + view.data().len();
            let stored = Stored {
                dtype,
                shape: view.shape().to_vec(),
                file: 0,
                bytes: range,
            };
            tensors.insert(name.to_string(), stored);
        }
        Ok(TensorFile {
            files: vec![bytes],
            tensors,
            foreign,
        })
    }

    /// Whether there is a tensor of that name, of whatever type.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name) || self.foreign.contains_key(name)
    }

    /// Those of its tensors whose names are wanted.
    pub(crate) fn only(mut self, wanted: impl Fn(&str) -> bool) -> Self {
        self.tensors.retain(|name, _| wanted(name));
        self.foreign.retain(|name, _| wanted(name));
        self
    }

    /// The tensors of several files as if they stood in one. Of a name that two of them have the first counts.
    pub(crate) fn joined(files: impl IntoIterator<Item = TensorFile>) -> Self {
        let mut all = TensorFile {
            files: Vec::new(),
            tensors: BTreeMap::new(),
            foreign: BTreeMap::new(),
        };
        for other in files {
            let before = all.files.len();
            for (name, stored) in other.tensors {
                let file = before + stored.file;
                let own = all.tensors.entry(name);
                own.or_insert(Stored { file, ..stored });
            }
            for (name, dtype) in other.foreign {
                all.foreign.entry(name).or_insert(dtype);
            }
            all.files.extend(other.files);
        }
        all
    }

    /// Named tensors whose bytes another format's reader has already decoded: little-endian, row-major.
    #[cfg(feature = "torch")]
    pub(crate) fn from_decoded(
        decoded: impl IntoIterator<Item = (String, Dtype, Vec<usize>, Vec<u8>)>,
    ) -> Self {
        let mut bytes = Vec::new();
        let mut tensors = BTreeMap::new();
        for (name, dtype, shape, own) in decoded {
            let start = bytes.len();
            bytes.extend_from_slice(&own);
            tensors.insert(
                name,
                Stored {
                    dtype,
                    shape,
                    file: 0,
                    bytes: start..bytes.len(),
                },
            );
        }
        TensorFile {
            files: vec![FileBytes::Read(bytes)],
            tensors,
            foreign: BTreeMap::new(),
        }
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor's shape, when it is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|t| t.shape.as_slice())
    }

    /// A tensor's element type, when it is there.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.tensors.get(name).map(|t| t.dtype)
    }

    fn stored(&self, name: &str, expected: &'static str) -> Result<(&Stored, &[u8])> {
        if let Some(found) = self.foreign.get(name) {
            return Err(Error::Dtype {
                name: name.into(),
                found: found.clone(),
                expected,
            });
        }
        let known = self.tensors.get(name);
        let stored = known.ok_or_else(|| Error::unknown("tensor", name, self.names()))?;
        Ok((stored, &self.files[stored.file][stored.bytes.clone()]))
    }

    /// A tensor of floating-point values, each converted to `T` with at most one rounding.
    ///
    /// # Errors
    /// When there is no such tensor, or it holds integers.
    pub fn float<T: Scalar>(&self, name: &str) -> Result<Tensor<T>> {
        const EXPECTED: &str = "F64, F32, F16 or BF16";
        let (stored, bytes) = self.stored(name, EXPECTED)?;
        let data = decode_float(stored.dtype, bytes).ok_or_else(|| Error::Dtype {
            name: name.into(),
            found: format!("{:?}", stored.dtype),
            expected: EXPECTED,
        })?;
        self.files[stored.file].done(stored.bytes.clone());
        Ok(Tensor::from_vec(&stored.shape, data))
    }

    /// A tensor's values in the 16 bits that the file has them in, if it has.
    pub(crate) fn narrow<T: Scalar>(&self, name: &str) -> Result<Option<Narrow<T>>> {
        let (stored, bytes) = self.stored(name, "BF16 or F16")?;
        let narrow = Narrow::of_bytes(stored.dtype, bytes);
        self.files[stored.file].done(stored.bytes.clone());
        Ok(narrow)
    }

    /// A tensor of integers: its shape, and its values in row-major order.
    ///
    /// # Errors
    /// When there is no such tensor, it does not hold integers, or one is beyond i64.
    pub fn integer(&self, name: &str) -> Result<(Vec<usize>, Vec<i64>)> {
        const EXPECTED: &str = "integers";
        let (stored, bytes) = self.stored(name, EXPECTED)?;
        let data = decode_integer(stored.dtype, bytes).ok_or_else(|| Error::Dtype {
            name: name.into(),
            found: match stored.dtype {
                // The one type of integers that can be beyond i64.
                Dtype::U64 => "U64 of 2^63 or more".into(),
                other => format!("{other:?}"),
            },
            expected: EXPECTED,
        })?;
        Ok((stored.shape.clone(), data))
    }
}

/// Little-endian floating-point bytes as `T`.
pub(crate) fn decode_float<T: Scalar>(dtype: Dtype, bytes: &[u8]) -> Option<Vec<T>> {
    macro_rules! decode {
        ($n:literal, $from:expr) => {
            bytes
                .chunks_exact($n)
                .map(|b| T::from_f64($from(b.try_into().unwrap())))
                .collect()
        };
    }
    Some(match dtype {
        Dtype::F64 => decode!(8, f64::from_le_bytes),
        Dtype::F32 => decode!(4, |b| f32::from_le_bytes(b) as f64),
        Dtype::F16 => decode!(2, |b| f16::from_le_bytes(b).to_f64()),
        Dtype::BF16 => decode!(2, |b| bf16::from_le_bytes(b).to_f64()),
        _ => return None,
    })
}

fn decode_integer(dtype: Dtype, bytes: &[u8]) -> Option<Vec<i64>> {
    macro_rules! decode {
        ($t:ty) => {
            bytes
                .chunks_exact(size_of::<$t>())
                .map(|b| i64::try_from(<$t>::from_le_bytes(b.try_into().unwrap())).ok())
                .collect()
        };
    }
    match dtype {
        Dtype::I64 => decode!(i64),
        Dtype::I32 => decode!(i32),
        Dtype::I16 => decode!(i16),
        Dtype::I8 => decode!(i8),
        Dtype::U64 => decode!(u64),
        Dtype::U32 => decode!(u32),
        Dtype::U16 => decode!(u16),
        Dtype::U8 | Dtype::Bool => decode!(u8),
        _ => None,
    }
}

/// A tensor as it is to be written: its element type, its shape, and its bytes.
pub struct Saved<'a> {
    dtype: safetensors::Dtype,
    shape: &'a [usize],
    bytes: &'a [u8],
}

impl<'a, T: Scalar> From<&'a Tensor<T>> for Saved<'a> {
    fn from(t: &'a Tensor<T>) -> Self {
        let dtype = match T::PRECISION {
            Precision::F32 => safetensors::Dtype::F32,
            Precision::F64 => safetensors::Dtype::F64,
        };
        Saved {
            dtype,
            shape: t.shape(),
            bytes: bytemuck::cast_slice(t.data()),
        }
    }
}

impl<'a> Saved<'a> {
    /// Integers of a shape, in row-major order, as I64.
    ///
    /// # Panics
    /// When their number is not the product of the shape.
    #[track_caller]
    pub fn integers(shape: &'a [usize], data: &'a [i64]) -> Self {
        let len: usize = shape.iter().product();
        assert_eq!(
            len,
            data.len(),
            "shape {shape:?} does not hold {} integers",
            data.len()
        );
        Saved {
            dtype: safetensors::Dtype::I64,
            shape,
            bytes: bytemuck::cast_slice(data),
        }
    }
}

/// Writes a file that appears whole or not at all: it is written beside its place and then renamed.
///
/// # Errors
/// When it cannot be written; what was there before is then still there.
pub fn write_file(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    Staged::new(path.as_ref(), bytes)?.commit()
}

/// Writes files into a folder by their names, all of them or none; the folder is made where there is none.
///
/// # Errors
/// When the folder or a file cannot be written. Folders made here are removed again then, and what an existing one held
/// is still there.
pub fn write_files(
    folder: impl AsRef<Path>,
    files: impl IntoIterator<Item = (String, Vec<u8>)>,
) -> Result<()> {
    let folder = folder.as_ref();
    fill_folder(folder, || {
        let files = files.into_iter();
        files
            .map(|(name, bytes)| Staged::new(&folder.join(name), &bytes))
            .collect()
    })
}

/// Makes a folder where there is none, and puts the files there that are then made for it: all of them are whole before any
/// takes its place.
pub(crate) fn fill_folder(
    folder: &Path,
    stage: impl FnOnce() -> Result<Vec<Staged>>,
) -> Result<()> {
    if folder.exists() && !folder.is_dir() {
        let reason = "is a file, expected a folder to write";
        return Err(Error::format(folder, reason));
    }
    // "" is where a relative path starts, and is said not to exist.
    let missing = |p: &&Path| !p.as_os_str().is_empty() && !p.exists();
    let made = folder.ancestors().take_while(missing).last();
    let fill = || {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        stage()?.into_iter().try_for_each(Staged::commit)
    };
    fill().inspect_err(|_| {
        if let Some(made) = made {
            // The first error is the one to report.
            let _ = std::fs::remove_dir_all(made);
        }
    })
}

/// Writes named tensors as a safetensors file: floating-point ones in the precision they have, integers as
/// I64.
///
/// The file appears whole or not at all: it is written beside its place and then renamed.
///
/// # Errors
/// When the file cannot be written; what was there before is then still there.
pub fn write_safetensors<'a, S: Into<Saved<'a>>>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (String, S)>,
) -> Result<()> {
    stage_safetensors(path.as_ref(), tensors)?.commit()
}

/// As [`write_safetensors`], but for the last step.
pub(crate) fn stage_safetensors<'a, S: Into<Saved<'a>>>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, S)>,
) -> Result<Staged> {
    let bytes = safetensors_bytes(tensors).map_err(|e| Error::format(path, e))?;
    Staged::new(path, &bytes)
}

/// The bytes of such a file.
pub(crate) fn safetensors_bytes<'a, S: Into<Saved<'a>>>(
    tensors: impl IntoIterator<Item = (String, S)>,
) -> Result<Vec<u8>, SafeTensorError> {
    let views: Vec<(String, TensorView<'_>)> = tensors
        .into_iter()
        .map(|(name, saved)| {
            let Saved {
                dtype,
                shape,
                bytes,
            } = saved.into();
            let view = TensorView::new(dtype, shape.to_vec(), bytes);
            (name, view.expect("a tensor's data fits its shape"))
        })
        .collect();
    serialize(views, None)
}

/// A file that is written whole beside its place, and takes it when it is committed. Dropped before
/// that, it leaves nothing, and what was there before is still there.
pub(crate) struct Staged {
    path: PathBuf,
    /// Nothing where the bytes went straight to a pipe or a device, which have no whole.
    file: Option<NamedTempFile>,
}

impl Staged {
    /// Writes the bytes: to what is there as it is, where that is neither a file nor a folder.
    pub(crate) fn new(path: &Path, bytes: &[u8]) -> Result<Self> {
        let io = |e| Error::io(path, e);
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if !folder.is_dir() {
            let reason = format!("there is no folder `{}`", folder.display());
            return Err(Error::format(path, reason));
        }
        let there = std::fs::metadata(path);
        if there.as_ref().is_ok_and(|m| m.is_dir()) {
            return Err(Error::format(path, "is a folder, expected a file to write"));
        }
        let file = if there.is_ok_and(|m| !m.is_file()) {
            let mut file = File::options().write(true).open(path).map_err(io)?;
            file.write_all(bytes)
                .and_then(|()| file.flush())
                .map_err(io)?;
            None
        } else {
            // Made here and not by tempfile's own functions: the umask decides who may read it, as for
            // any program's output, and errors do not name the temporary file.
            let mut file = tempfile::Builder::new()
                .prefix(".pathsum-")
                .suffix(".tmp")
                .make_in(folder, |at| {
                    File::options().write(true).create_new(true).open(at)
                })
                .map_err(io)?;
            let inner = file.as_file_mut();
            inner
                .write_all(bytes)
                .and_then(|()| inner.sync_all())
                .map_err(io)?;
            Some(file)
        };
        Ok(Staged {
            path: path.into(),
            file,
        })
    }

    /// Puts the file in its place.
    pub(crate) fn commit(self) -> Result<()> {
        if let Some(file) = self.file {
            file.persist(&self.path)
                .map_err(|e| Error::io(&self.path, e.error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(dtype: safetensors::Dtype, shape: &[usize], bytes: &[u8]) -> TensorFile {
        let view = TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
        TensorFile::from_bytes("memory", serialize([("t", view)], None).unwrap()).unwrap()
    }

    #[test]
    fn half_precisions_and_integers_are_read_exactly() {
        let f16s: Vec<u8> = [1.5f32, -0.25]
            .iter()
            .flat_map(|&x| f16::from_f32(x).to_le_bytes())
            .collect();
        let file = one(safetensors::Dtype::F16, &[2], &f16s);
        assert_eq!(file.float::<f32>("t").unwrap().data(), [1.5, -0.25]);
        assert!(file.integer("t").is_err());
        let bf16s: Vec<u8> = bf16::from_f32(3.0).to_le_bytes().to_vec();
        assert_eq!(
            one(safetensors::Dtype::BF16, &[1], &bf16s)
                .float::<f64>("t")
                .unwrap()
                .data(),
            [3.0]
        );
        let file = one(safetensors::Dtype::I32, &[1, 1], &(-7i32).to_le_bytes());
        assert_eq!(file.integer("t").unwrap(), (vec![1, 1], vec![-7]));
        assert!(file.float::<f64>("t").is_err());
        let huge = one(safetensors::Dtype::U64, &[1], &u64::MAX.to_le_bytes());
        assert!(huge.integer("t").is_err());
    }

    #[test]
    fn a_wrong_name_gets_the_nearest() {
        let file = one(safetensors::Dtype::U8, &[1], &[1]);
        assert!(
            file.integer("tt")
                .unwrap_err()
                .to_string()
                .contains("did you mean `t`?")
        );
    }

    #[test]
    fn written_files_read_back_to_the_same_bits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let t = Tensor::from_fn(&[3, 2], |at| (at[0] as f64 + 0.1).sqrt() * at[1] as f64);
        write_safetensors(&path, [("a".to_string(), &t)]).unwrap();
        let integers = (vec![2, 1], vec![i64::MIN, 7]);
        let both = dir.path().join("both.safetensors");
        let saved = [
            ("t".to_string(), Saved::from(&t)),
            ("i".to_string(), Saved::integers(&integers.0, &integers.1)),
        ];
        write_safetensors(&both, saved).unwrap();
        let file = TensorFile::open(&both).unwrap();
        assert_eq!(file.integer("i").unwrap(), integers);
        assert_eq!(file.float::<f64>("t").unwrap(), t);
        std::fs::remove_file(both).unwrap();
        assert_eq!(
            TensorFile::open(&path).unwrap().float::<f64>("a").unwrap(),
            t
        );
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "a temporary file was left"
        );
    }
}
