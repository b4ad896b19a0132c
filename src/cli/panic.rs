//! What a panic says beside its own message: that it is a defect of the program's, and where to report it.

use std::io::Write;
use std::sync::Once;

/// Where to report a defect: the repository, or else the documentation, which names it.
const REPORT: &str = {
    let repository = env!("CARGO_PKG_REPOSITORY");
    if repository.is_empty() {
        "where pathsum is kept, which https://docs.rs/pathsum names"
    } else {
        repository
    }
};

/// Has every panic followed by a paragraph on what to do about it, once: other threads may panic for the same reason.
/// What the program exits with is left as it is.
pub fn say_where_to_report() {
    let usual = std::panic::take_hook();
    let once = Once::new();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        // Where stderr is full or closed there is nobody left to tell.
        once.call_once(|| drop(std::io::stderr().write_all(advice().as_bytes())));
    }));
}

fn advice() -> String {
    format!(
        "\nThis is a defect of pathsum {}, not of what it was given: whatever is wrong with that gets one line and exit status 2. \
         Please report it ({REPORT}) with the command line, the lines above and what `pathsum --version` prints.\n",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// What the other test looks at from outside.
    #[test]
    #[ignore = "panics"]
    fn two_threads_panic() {
        say_where_to_report();
        std::thread::spawn(|| panic!("seven")).join().unwrap_err();
        panic!("eight");
    }

    #[test]
    fn a_panic_says_where_to_report_it_and_once() {
        let this = std::env::current_exe().unwrap();
        let args = [
            "--exact",
            "cli::panic::tests::two_threads_panic",
            "--ignored",
            "--nocapture",
        ];
        let output = Command::new(this).args(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        for said in ["seven", "eight", "panic.rs"] {
            assert!(stderr.contains(said), "{said}: {stderr}");
        }
        assert_eq!(stderr.matches(&advice()).count(), 1, "{stderr}");
        assert!(advice().contains(env!("CARGO_PKG_VERSION")));
    }
}
