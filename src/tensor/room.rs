//! Whether there is memory for something large, asked before it is begun.

use crate::error::{Error, Result};

/// Less than this is not asked about.
const LARGE: u64 = 1 << 28;

/// That so many bytes can be had for something.
///
/// # Errors
/// When the system says that there are fewer.
pub fn check_room(bytes: u64, what: &str) -> Result<()> {
    // To ask takes longer than a small model's run.
    let there = if bytes > LARGE { available() } else { None };
    match there.filter(|&there| bytes > there) {
        None => Ok(()),
        Some(there) => Err(Error::Memory {
            what: what.into(),
            bytes,
            there,
        }),
    }
}

/// How many bytes can be had without swapping, where the system says so.
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_machine_has_is_refused_where_the_system_tells() {
        check_room(0, "nothing").unwrap();
        check_room(LARGE, "little").unwrap();
        if available().is_some() {
            let error = check_room(u64::MAX, "all of it").unwrap_err().to_string();
            assert!(
                error.starts_with("all of it would take 17179869184.0 GiB"),
                "{error}"
            );
        }
    }
}
