//! The architecture, kept: which room may import from which, and what stands in one room only.

use std::path::{Path, PathBuf};

/// The rooms, from the ground up. Each imports only from those before it in the list.
const LAYERS: [&str; 33] = [
    "error",
    "names",
    "diagram",
    "tensor",
    "linalg",
    "factored",
    "frequency",
    "expr",
    "plan",
    "kernel",
    "op",
    "model",
    "format",
    "text",
    "fixture",
    "strategies",
    "browser",
    "eval",
    "decompose",
    "verify",
    "metric",
    "gradient",
    "resume",
    "intervene",
    "edges",
    "task",
    "certify",
    "train",
    "study",
    "report",
    "guide",
    "cli",
    "main",
];

/// Where to think of splitting a file; its tests are not counted.
const LONG: usize = 600;

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            all.push(path);
        }
    }
    all.sort();
    all
}

/// Every source file below `src/`, by its path from there, and its text without comments and tests.
fn code() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text
            .split("#[cfg(test)]\nmod tests")
            .next()
            .unwrap_or_default();
        let lines = text.lines().filter(|l| !l.trim_start().starts_with("//"));
        let name = path
            .strip_prefix(&src)
            .unwrap()
            .to_string_lossy()
            .replace('\\', "/");
        (name, lines.map(|l| format!("{l}\n")).collect())
    };
    let all: Vec<_> = sources(&src).into_iter().map(read).collect();
    assert!(!all.is_empty(), "no sources were found");
    all
}

fn layer(room: &str) -> usize {
    // An error names heads and hooks, and a name that is not one is an error: these two know each other.
    let level = if room == "names" { "error" } else { room };
    let found = LAYERS.iter().position(|l| *l == level);
    found.unwrap_or_else(|| panic!("`{room}` has no place in the list of layers"))
}

/// The rooms that a text names after `crate::` or `pathsum::`.
fn imports(text: &str) -> Vec<&str> {
    let mut rooms = Vec::new();
    for path in ["crate::", "pathsum::"] {
        for (i, _) in text.match_indices(path) {
            let rest = &text[i + path.len()..];
            let end = rest
                .find(|c: char| !c.is_ascii_lowercase() && c != '_')
                .unwrap_or(rest.len());
            rooms.push(&rest[..end]);
        }
    }
    rooms
}

#[test]
fn rooms_import_only_from_below() {
    let mut seen = 0;
    for (file, text) in code() {
        let room = file.split(['/', '.']).next().unwrap();
        if room == "lib" {
            continue;
        }
        for import in imports(&text) {
            // What the crate's root exports (`pathsum::Model`, `pathsum::{…}`) is for the program alone.
            if import.is_empty() || import == "write_safetensors" {
                assert!(
                    layer(room) >= layer("cli"),
                    "{file} imports from the crate's root"
                );
                continue;
            }
            seen += 1;
            assert!(
                layer(import) <= layer(room),
                "{file} ({room}) imports from {import}, which is above it"
            );
        }
    }
    assert!(seen > 50, "only {seen} imports were recognised");
}

#[test]
fn what_stands_in_one_room_only() {
    for (words, rooms) in [
        (
            &["unsafe {", "unsafe fn", "unsafe impl"][..],
            &["tensor/map.rs", "linalg/blas.rs"][..],
        ),
        (
            // `.svd()` and `.eigenvalues()` are also methods of `Factored`, which has its own from there.
            &[
                "faer::linalg",
                ".qr()",
                ".thin_svd()",
                ".singular_values()",
                ".self_adjoint_eigen",
                ".full_piv_lu()",
                "matmul(",
            ],
            &["linalg/"],
        ),
        (&["println!", "eprintln!"], &["cli/"]),
    ] {
        for (file, text) in code() {
            if rooms.iter().any(|room| file.starts_with(room)) {
                continue;
            }
            for word in words {
                assert!(
                    !text.contains(word),
                    "{file} has `{word}`, which belongs in {rooms:?}"
                );
            }
        }
    }
}

#[test]
fn the_algebra_sees_no_numbers() {
    for (file, text) in code() {
        let words: &[&str] = match file.split('/').next() {
            Some("expr") => &["f64", "f32", "Scalar", "Weights", "Model<", "Mat<"],
            Some("plan") => &["Scalar", "Weights", "Model<", "Mat<", "Tensor"],
            _ => &[],
        };
        for word in words {
            assert!(!text.contains(word), "{file} has `{word}`");
        }
    }
}

#[test]
fn no_tolerance_is_a_literal() {
    for (file, text) in code() {
        if !file.starts_with("verify/") && !file.starts_with("linalg/") {
            continue;
        }
        for (i, _) in text.match_indices("e-") {
            let before = text[..i]
                .chars()
                .next_back()
                .is_some_and(|c| c.is_ascii_digit());
            let after = text[i + 2..]
                .chars()
                .next()
                .is_some_and(|c| c.is_ascii_digit());
            let start = text[..i].rfind('\n').map_or(0, |n| n + 1);
            assert!(
                !(before && after),
                "{file}: a literal: {}",
                text[start..].lines().next().unwrap()
            );
        }
    }
}

#[test]
fn no_file_is_too_long() {
    for (file, text) in code() {
        let lines = text.lines().count();
        assert!(lines <= LONG, "{file} has {lines} lines");
    }
}

/// Only what the repository would publish is read, so that a checkout's own folders do not matter.
#[test]
fn no_path_of_a_machine() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches"] {
        files.extend(sources(&root.join(folder)));
    }
    files.extend(
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Cargo.toml"].map(|f| root.join(f)),
    );
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        for start in ["/home/", "/root/", "/work/", "/Users/"] {
            let own = path.ends_with("tidy.rs");
            assert!(
                own || !text.contains(start),
                "{} names {start}",
                path.display()
            );
        }
    }
}
