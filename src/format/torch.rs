//! State dicts as PyTorch writes them (`.pt`).

use crate::error::{Error, Result};
use crate::tensor::{Dtype, TensorFile};
use pytorch_reader::{DType, PytorchError, PytorchReader, Tensor};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use tempfile::NamedTempFile;

/// What a file should have been, for messages.
const EXPECTED: &str = "expected a state dict written by torch.save";

/// The keys under which training scripts keep the state dict, beside the optimizer's state and the like.
/// `model` is last: inside a `state_dict`, it can be the attribute that holds the transformer.
const WRAPPERS: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// A view can repeat what its storage holds, so a damaged file of 1 KB can declare a tensor of 1 GB. All
/// tensors together may take this many times the file's length, which leaves room for compressed archives…
const MAX_GROWTH: u64 = 16;
/// …and as many bytes besides, for small files with expanded masks.
const MAX_EXTRA: u64 = 16 << 20;
/// The most axes that PyTorch's own operations take.
const MAX_AXES: usize = 64;

/// Reads every tensor of a PyTorch checkpoint. The names lose the key of a state dict that is nested one
/// level, and what stands beside such a dict is left out.
pub(crate) fn open_state_dict(path: &Path) -> Result<TensorFile> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    if metadata.is_dir() {
        return Err(Error::format(path, format!("is a folder, {EXPECTED}")));
    }
    // A pipe cannot be read at random places, and opening one can wait for ever.
    if !metadata.is_file() {
        return Err(Error::format(
            path,
            format!("is not a regular file, {EXPECTED}"),
        ));
    }
    if metadata.len() == 0 {
        return Err(Error::format(path, format!("is empty, {EXPECTED}")));
    }
    match find_tensors(path) {
        Ok(tensors) => decode(path, metadata.len(), tensors),
        Err(refusal @ PytorchError::Zip(_)) => match without_zip64_records(path) {
            // The copy must stay until its tensors are read.
            Ok(Some(copy)) => find_tensors(copy.path())
                .map_err(|e| explain(path, e))
                .and_then(|tensors| decode(path, metadata.len(), tensors)),
            Ok(None) => Err(explain(path, refusal)),
            Err(e) => Err(Error::format(
                path,
                format!("cannot be read without a temporary copy: {e}"),
            )),
        },
        Err(e) => Err(explain(path, e)),
    }
}

/// The tensors of a checkpoint's state dict, not yet read.
fn find_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, PytorchError> {
    let under = |name: &str, key: &str| {
        name.strip_prefix(key)
            .is_some_and(|rest| rest.starts_with('.'))
    };
    let mut tensors: BTreeMap<_, _> = PytorchReader::new(path)?
        .into_tensors()
        .into_iter()
        .collect();
    for key in WRAPPERS {
        // A name with this prefix can also be a whole key, `model.embed.W_E`: then there is no such dict.
        if tensors.keys().any(|name| under(name, key))
            && !tensors.keys().all(|name| under(name, key))
            && let Ok(inner) = PytorchReader::with_top_level_key(path, key)
        {
            tensors = inner.into_tensors().into_iter().collect();
            break;
        }
    }
    for key in WRAPPERS {
        if tensors.keys().all(|name| under(name, key)) {
            tensors = tensors
                .into_iter()
                .map(|(name, t)| (name[key.len() + 1..].to_string(), t))
                .collect();
        }
    }
    Ok(tensors)
}

/// Reads the tensors' values.
fn decode(path: &Path, file_len: u64, tensors: BTreeMap<String, Tensor>) -> Result<TensorFile> {
    if tensors.is_empty() {
        return Err(Error::format(path, format!("holds no tensors, {EXPECTED}")));
    }
    if let Some((name, tensor)) = tensors.iter().find(|(_, t)| t.shape().len() > MAX_AXES) {
        let axes = tensor.shape().len();
        let reason = format!("tensor '{name}' has {axes} axes, expected at most {MAX_AXES}");
        return Err(Error::format(path, one_line(reason)));
    }
    let total = tensors
        .values()
        .fold(0u64, |sum, t| sum.saturating_add(t.byte_len() as u64));
    let most = file_len
        .saturating_mul(MAX_GROWTH)
        .saturating_add(MAX_EXTRA);
    if total > most {
        let reason = format!(
            "its tensors take {total} bytes, expected at most {most} in a file of {file_len}"
        );
        return Err(Error::format(path, reason));
    }
    let mut failure = None;
    // One tensor at a time, so that no second copy of all of them is ever held.
    let file = TensorFile::from_decoded(tensors.into_iter().map_while(|(name, tensor)| {
        let bytes = tensor
            .read()
            .inspect_err(|e| failure = Some(one_line(e)))
            .ok()?;
        Some((name, dtype(tensor.dtype()), tensor.shape().to_vec(), bytes))
    }));
    match failure {
        None => Ok(file),
        Some(reason) => Err(Error::format(path, reason)),
    }
}

fn dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool => Dtype::Bool,
    }
}

/// Why a checkpoint could not be opened, for its user.
fn explain(path: &Path, error: PytorchError) -> Error {
    let what = match error {
        PytorchError::Io(e) if e.raw_os_error().is_some() => return Error::io(path, e),
        PytorchError::Zip(_) => "is a truncated or damaged archive",
        _ => "is not a sound PyTorch checkpoint",
    };
    Error::format(path, one_line(format!("{what}, {EXPECTED} ({error})")))
}

/// A reader's message made fit for one line: it can quote the file, whatever that holds.
fn one_line(message: impl ToString) -> String {
    const MOST: usize = 300;
    let message = message.to_string();
    let plain = message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    let mut line: String = plain.take(MOST).collect();
    if message.chars().nth(MOST).is_some() {
        line.push('…');
    }
    line
}

/// A copy of an archive without the zip64 records that PyTorch puts behind every central directory, or
/// `None` when there are none, or they are needed.
///
/// The zip reader below pytorch-reader takes the directory to start at the end record's position less the
/// directory's length, when an entry starts there. The two zip64 records in between, 76 bytes, make that
/// the second entry if the first is 76 bytes long: `ROOT/data.pkl` with a ROOT of 21 bytes, as a file has
/// that was saved as `two_layer_transformer.pt`. Then it looks for one entry too many, and refuses the
/// archive ("Invalid Central Directory header"). Below 65,535 entries and 4 GiB the end record says all
/// that the zip64 records do.
fn without_zip64_records(path: &Path) -> io::Result<Option<NamedTempFile>> {
    let mut file = File::open(path)?;
    let len = file.seek(SeekFrom::End(0))?;
    let Some(records) = find_zip64_records(&mut file, len)? else {
        return Ok(None);
    };
    let mut copy = NamedTempFile::new()?;
    for kept in [0..records.start, records.end..len] {
        file.seek(SeekFrom::Start(kept.start))?;
        io::copy(&mut (&file).take(kept.end - kept.start), copy.as_file_mut())?;
    }
    Ok(Some(copy))
}

/// Where the zip64 records are that an archive could do without.
fn find_zip64_records(file: &mut File, len: u64) -> io::Result<Option<std::ops::Range<u64>>> {
    const END: &[u8] = b"PK\x05\x06";
    const END_LEN: usize = 22;
    const RECORD: [u8; 4] = *b"PK\x06\x06";
    const LOCATOR: &[u8] = b"PK\x06\x07";
    const LOCATOR_LEN: usize = 20;
    // Behind the end record there is at most a comment, whose length it gives in 16 bits.
    let tail_start = len.saturating_sub((LOCATOR_LEN + END_LEN + u16::MAX as usize) as u64);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(tail_start))?;
    file.take(len - tail_start).read_to_end(&mut tail)?;
    let found = tail
        .windows(LOCATOR_LEN + END_LEN)
        .rposition(|w| w[LOCATOR_LEN..].starts_with(END));
    let Some(at) = found else { return Ok(None) };
    let (locator, end) = tail[at..].split_at(LOCATOR_LEN);
    let u32_at = |at: usize| u32::from_le_bytes([end[at], end[at + 1], end[at + 2], end[at + 3]]);
    let (directory_len, directory_start) = (u32_at(12), u32_at(16));
    // A field with all bits set stands for one in the zip64 records.
    let needed =
        end[10..12] == [0xff; 2] || directory_len == u32::MAX || directory_start == u32::MAX;
    let records = u64::from(directory_start) + u64::from(directory_len)
        ..tail_start + (at + LOCATOR_LEN) as u64;
    if needed || !locator.starts_with(LOCATOR) || records.start > tail_start + at as u64 {
        return Ok(None);
    }
    let mut signature = [0; 4];
    file.seek(SeekFrom::Start(records.start))?;
    file.read_exact(&mut signature)?;
    Ok((signature == RECORD).then_some(records))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, RngExt, SeedableRng, rngs::ChaCha8Rng};
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    /// The archives that `tests/data/torch/make.py` wrote: file name, what is in it, path.
    fn archives() -> Vec<(String, String, PathBuf)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torch");
        let mut found: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "pt"))
            .map(|path| {
                let stem = path.file_stem().unwrap().to_str().unwrap().to_string();
                let (_version, what) = stem.split_once('-').unwrap();
                (stem.clone(), what.to_string(), path)
            })
            .collect();
        found.sort();
        assert!(found.len() >= 50, "only {} archives", found.len());
        found
    }

    fn archive(name: &str) -> Vec<u8> {
        let (.., path) = archives()
            .into_iter()
            .find(|(stem, ..)| stem == name)
            .unwrap();
        std::fs::read(path).unwrap()
    }

    /// Opens bytes as a file of their own.
    fn open(bytes: &[u8]) -> Result<TensorFile> {
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        open_state_dict(file.path())
    }

    fn message(bytes: &[u8]) -> String {
        let message = open(bytes).err().expect("this file is unsound").to_string();
        assert!(!message.contains('\n'), "more than one line: {message}");
        message
    }

    fn ramp(len: usize, start: f64) -> Vec<f64> {
        (0..len).map(|i| (i as f64 + start) / 2.0).collect()
    }

    #[track_caller]
    fn check_float(file: &TensorFile, name: &str, dtype: Dtype, shape: &[usize], expected: &[f64]) {
        assert_eq!(file.dtype(name), Some(dtype), "{name}");
        let tensor = file.float::<f64>(name).unwrap();
        assert_eq!(tensor.shape(), shape, "{name}");
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(tensor.data()), bits(expected), "{name}");
    }

    #[track_caller]
    fn check_integer(
        file: &TensorFile,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        expected: &[i64],
    ) {
        assert_eq!(file.dtype(name), Some(dtype), "{name}");
        assert_eq!(
            file.integer(name).unwrap(),
            (shape.to_vec(), expected.to_vec()),
            "{name}"
        );
    }

    fn check_state_dict(file: &TensorFile) {
        use Dtype::F32;
        assert_eq!(file.names().count(), 5);
        check_float(file, "embed.W_E", F32, &[3, 2], &ramp(6, -2.0));
        check_float(file, "blocks.0.attn.W_Q", F32, &[1, 2, 2], &ramp(4, 1.0));
        check_integer(
            file,
            "blocks.0.attn.mask",
            Dtype::Bool,
            &[2, 2],
            &[1, 0, 1, 1],
        );
        check_float(file, "blocks.0.attn.IGNORE", F32, &[], &[f64::NEG_INFINITY]);
        check_float(file, "unembed.b_U", F32, &[3], &ramp(3, 0.0));
    }

    fn check_dtypes(file: &TensorFile) {
        assert_eq!(file.names().count(), 12);
        check_float(file, "none", Dtype::F32, &[0, 3], &[]);
        check_float(file, "scalar", Dtype::F32, &[], &[-1e5]);
        check_float(
            file,
            "f64",
            Dtype::F64,
            &[3],
            &[0.1, f64::NEG_INFINITY, f64::NAN],
        );
        check_float(
            file,
            "f32",
            Dtype::F32,
            &[3],
            &[0.1f32 as f64, f64::INFINITY, -0.0],
        );
        check_float(file, "f16", Dtype::F16, &[2], &[1.5, -0.25]);
        check_float(file, "bf16", Dtype::BF16, &[2], &[3.0, -0.0078125]);
        check_integer(file, "i64", Dtype::I64, &[2], &[i64::MIN, i64::MAX]);
        check_integer(
            file,
            "i32",
            Dtype::I32,
            &[2],
            &[i32::MIN as i64, i32::MAX as i64],
        );
        check_integer(
            file,
            "i16",
            Dtype::I16,
            &[2],
            &[i16::MIN as i64, i16::MAX as i64],
        );
        check_integer(
            file,
            "i8",
            Dtype::I8,
            &[2],
            &[i8::MIN as i64, i8::MAX as i64],
        );
        check_integer(file, "u8", Dtype::U8, &[2], &[0, 255]);
        check_integer(file, "bool", Dtype::Bool, &[3], &[1, 0, 1]);
    }

    fn check_views(file: &TensorFile) {
        use Dtype::F32;
        let base = ramp(12, 0.0);
        let pick = |at: &[usize]| at.iter().map(|&i| base[i]).collect::<Vec<_>>();
        assert_eq!(file.names().count(), 8);
        check_float(file, "base", F32, &[3, 4], &base);
        check_float(file, "tied", F32, &[3, 4], &base);
        check_float(
            file,
            "transposed",
            F32,
            &[4, 3],
            &pick(&[0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]),
        );
        check_float(file, "row", F32, &[4], &base[4..8]);
        check_float(file, "corner", F32, &[2, 2], &pick(&[6, 7, 10, 11]));
        check_float(
            file,
            "every_other",
            F32,
            &[3, 2],
            &pick(&[0, 2, 4, 6, 8, 10]),
        );
        check_float(file, "expanded", F32, &[2, 3], &[5.0; 6]);
        check_float(file, "parameter", F32, &[4], &base[8..]);
    }

    fn check(what: &str, file: &TensorFile) {
        match what {
            "dtypes" | "legacy_dtypes" => check_dtypes(file),
            "views" | "legacy_views" => check_views(file),
            _ => check_state_dict(file),
        }
    }

    #[test]
    fn every_version_of_pytorch_is_read_to_the_bit() {
        for (stem, what, path) in archives() {
            eprintln!("{stem}");
            check(&what, &open_state_dict(&path).unwrap());
        }
    }

    /// When this fails because nothing is refused any more, the zip reader is right and the rewriting can go.
    #[test]
    fn some_sound_archives_still_need_rewriting() {
        for (stem, what, path) in archives() {
            let refused = matches!(PytorchReader::new(&path), Err(PytorchError::Zip(_)));
            assert_eq!(
                refused,
                ["refused", "lightning", "unchecked"].contains(&what.as_str()),
                "{stem}"
            );
        }
    }

    #[test]
    fn a_refused_archive_may_have_a_comment_or_a_tail() {
        let sound = archive("2.15.0-refused");
        let mut commented = sound.clone();
        let len = commented.len();
        commented[len - 2] = 7;
        commented.extend_from_slice(b"comment");
        check_state_dict(&open(&commented).unwrap());
        check_state_dict(&open(&[&sound[..], b"tail"].concat()).unwrap());
    }

    #[test]
    fn a_rewritten_archive_lacks_nothing_but_the_records() {
        let sound = archive("1.13.1-refused");
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &sound).unwrap();
        let rewritten = without_zip64_records(file.path()).unwrap().unwrap();
        let bytes = std::fs::read(rewritten.path()).unwrap();
        let (body, end) = (sound.len() - 98, sound.len() - 22);
        assert_eq!(bytes, [&sound[..body], &sound[end..]].concat());
        assert!(without_zip64_records(rewritten.path()).unwrap().is_none());
    }

    #[test]
    fn unsound_files_say_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let failure = |path: &Path| open_state_dict(path).err().unwrap().to_string();
        let missing = folder.path().join("missing.pt");
        assert!(matches!(open_state_dict(&missing), Err(Error::Io { .. })));
        assert!(failure(&missing).starts_with(missing.to_str().unwrap()));
        assert!(failure(folder.path()).contains("is a folder, expected"));
        assert!(message(b"").contains("is empty, expected"));
        for garbage in [
            &b"hello"[..],
            b"PK",
            &[0; 4096],
            b"{\"n_ctx\": 4}",
            b"\x80\x02",
        ] {
            assert!(message(garbage).contains("is not a sound PyTorch checkpoint, expected"));
        }
        // `pickle.dumps({"n_ctx": 4})`, and of a list.
        assert!(
            message(b"\x80\x02}q\0X\x05\0\0\0n_ctxq\x01K\x04s.")
                .contains("holds no tensors, expected")
        );
        assert!(message(b"\x80\x02]q\0.").contains("is not a sound PyTorch checkpoint"));
    }

    #[test]
    fn a_truncated_file_is_an_error_wherever_it_ends() {
        for name in ["2.15.0-plain", "1.13.1-refused", "2.8.0-legacy"] {
            let sound = archive(name);
            for len in 0..sound.len() {
                let message = message(&sound[..len]);
                if name != "2.8.0-legacy" && len > 4 {
                    assert!(
                        message.contains("is a truncated or damaged archive, expected"),
                        "{message}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_corrupt_storage_is_named() {
        let ramp: Vec<u8> = ramp(6, -2.0)
            .iter()
            .flat_map(|&v| (v as f32).to_le_bytes())
            .collect();
        for name in ["2.15.0-plain", "2.1.2-refused"] {
            let mut bytes = archive(name);
            let at = bytes.windows(ramp.len()).position(|w| w == ramp).unwrap();
            bytes[at] ^= 1;
            let message = message(&bytes);
            assert!(
                message.contains("embed.W_E") && message.contains("checksum"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_small_file_cannot_claim_large_tensors() {
        // The expanded tensor's shape (2, 3) becomes (2, 1_000_000_000): 8 GB from one value.
        let sound = archive("2.15.0-legacy_views");
        let at = sound
            .windows(5)
            .position(|w| w == b"K\x02K\x03\x86")
            .unwrap();
        let huge = [&sound[..at + 2], b"J\x00\xca\x9a\x3b", &sound[at + 4..]].concat();
        assert!(
            message(&huge).contains("its tensors take 800000"),
            "{}",
            message(&huge)
        );
    }

    /// Clears the checksums of a zip archive's directory, which says that there are none: what is
    /// changed in the pickle then gets past the archive's reader.
    fn without_checksums(mut bytes: Vec<u8>) -> Vec<u8> {
        for at in 0..bytes.len().saturating_sub(20) {
            if bytes[at..].starts_with(b"PK\x01\x02") {
                bytes[at + 16..at + 20].fill(0);
            }
        }
        bytes
    }

    fn mutate(bytes: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
        /// What tends to break readers of lengths.
        const LENGTHS: [u64; 7] = [0, 1, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];
        for _ in 0..rng.random_range(1..4) {
            if bytes.is_empty() {
                return;
            }
            let at = rng.random_range(0..bytes.len());
            let end = at + rng.random_range(0..=(bytes.len() - at).min(64));
            match rng.random_range(0..7) {
                0 => bytes[at] ^= 1 << rng.random_range(0..8),
                1 => bytes[at] = rng.next_u32() as u8,
                2 => bytes.truncate(at),
                3 => {
                    let value = LENGTHS[rng.random_range(0..LENGTHS.len())];
                    let width = [2, 4, 8][rng.random_range(0..3)].min(bytes.len() - at);
                    bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
                }
                4 => {
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
                5 => {
                    let to = rng.random_range(0..=bytes.len() - (end - at));
                    bytes.copy_within(at..end, to);
                }
                _ => drop(bytes.drain(at..end)),
            }
        }
    }

    #[test]
    fn damaged_archives_never_panic_nor_hang() {
        const CASES: usize = 5_000;
        let sound: Vec<_> = archives()
            .into_iter()
            .map(|(.., path)| std::fs::read(path).unwrap())
            .collect();
        let mut rng = ChaCha8Rng::seed_from_u64(22);
        let file = NamedTempFile::new().unwrap();
        let mut opened = 0;
        for case in 0..CASES {
            let mut bytes = sound[rng.random_range(0..sound.len())].clone();
            if rng.random() {
                bytes = without_checksums(bytes);
            }
            mutate(&mut bytes, &mut rng);
            std::fs::write(file.path(), &bytes).unwrap();
            let start = Instant::now();
            let result = std::panic::catch_unwind(|| open_state_dict(file.path()));
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "case {case} takes too long"
            );
            match result.unwrap_or_else(|_| panic!("case {case} panics")) {
                Ok(found) => {
                    opened += 1;
                    for name in found.names() {
                        // As many values as the shape says, or this panics.
                        let _ = found.float::<f32>(name);
                        let _ = found.integer(name);
                    }
                }
                Err(e) => {
                    let message = e.to_string();
                    assert!(
                        !message.contains('\n') && message.chars().count() < 600,
                        "case {case}: {message}"
                    );
                }
            }
        }
        // Damage that no check sees must be among the cases, and so must damage that one does.
        assert!(
            (CASES / 20..CASES * 19 / 20).contains(&opened),
            "{opened} opened"
        );
    }
}
