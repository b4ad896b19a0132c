//! Where the reference data are: `PATHSUM_REFERENCE` names a folder of folders (docs/reference.md). A test that needs
//! them says that it was skipped where it is unset.

use std::path::PathBuf;

/// The folder that holds all of them.
pub fn root() -> Option<PathBuf> {
    let root = std::env::var_os("PATHSUM_REFERENCE");
    if root.is_none() {
        eprintln!("skipped: PATHSUM_REFERENCE is not set");
    }
    root.map(PathBuf::from)
}

/// A reference folder, and the figures that it expects.
pub fn folder(name: &str) -> Option<(PathBuf, serde_json::Value)> {
    let folder = root()?.join(name);
    let figures = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    Some((folder, serde_json::from_str(&figures).unwrap()))
}
