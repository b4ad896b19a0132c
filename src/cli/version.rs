//! What `--version` says: which version it is, what was compiled in, and what it computes with.

/// The features of the package, and whether each was compiled in.
macro_rules! features {
    ($($name:literal),*) => { [$(($name, cfg!(feature = $name))),*] };
}

/// The version, the features with and without, and the instructions that the kernels use on this processor.
pub fn long() -> String {
    let features = features!(
        "blas", "browser", "certify", "cli", "fixtures", "nalgebra", "proptest", "report",
        "studies", "tasks", "text", "torch", "train"
    );
    let names = |with: bool| {
        let names = features.iter().filter(|f| f.1 == with).map(|f| f.0);
        names.collect::<Vec<_>>().join(" ")
    };
    let lines = [
        env!("CARGO_PKG_VERSION").to_string(),
        format!("features: {}", names(true)),
        format!("without: {}", names(false)),
        format!("instructions: {}", pathsum::tensor::instructions()),
    ];
    lines.join("\n")
}
