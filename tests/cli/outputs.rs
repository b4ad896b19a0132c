//! What cannot be written.

use crate::program::{PROGRAM, Scratch, check_complaint, small_model, table, texts, tokens_file};
use pathsum::fixture;
use std::process::Command;

#[test]
fn outputs_that_cannot_be_written() {
    let s = Scratch::new();
    for (out, said) in table(
        "nowhere/l     => nowhere/l: there is no folder `nowhere`
         config.json/l => config.json/l: there is no folder `config.json`
         model         => model: is a folder, expected a file to write",
    ) {
        s.bad(&format!("run model --tokens data --out {out}"), said);
        let line = format!("cache model --tokens data --names * --out {out}");
        s.bad(&line, said);
    }
    s.write("taken/config.json/in_the_way", b"");
    s.write("taken/model.safetensors", b"what was there");
    for (out, said) in table(
        "config.json           => config.json: is a file, expected a folder to write
         config.json/made      => config.json/made: Not a directory
         config.json/made/here => config.json/made/here: Not a directory
         taken                 => taken/config.json: is a folder, expected a file to write",
    ) {
        // The weights could be written to the last, the configuration cannot: then neither is.
        s.bad(&format!("process model {out}"), said);
        if cfg!(feature = "torch") {
            s.bad(&format!("convert model.pt {out}"), said);
        }
    }
}

/// Root can write into a folder that is read-only, but not into one that the kernel makes.
#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_nobody_can_write_to() {
    let s = Scratch::new();
    s.bad(
        "run model --tokens data --out /proc/self/l",
        "/proc/self/l: ",
    );
    s.bad("process model /proc/self/made", "/proc/self/made: ");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_an_error_and_stays_a_device() {
    use std::os::unix::fs::FileTypeExt;
    let s = Scratch::new();
    let is_device = |path: &str| {
        std::fs::metadata(path)
            .unwrap()
            .file_type()
            .is_char_device()
    };
    s.bad(
        "run model --tokens data --out /dev/full",
        "/dev/full: No space left on device",
    );
    assert!(is_device("/dev/full"));
    // And a device with room takes what it is given.
    s.ok("run model --tokens data --out /dev/null");
    assert!(is_device("/dev/null"));

    let full = || {
        std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    for args in [&["info", "model"][..], &["check", "model", "--json"]] {
        let output = texts(s.command(args).stdout(full()).output());
        check_complaint("a full stdout", output, "stdout: No space left on device");
    }
    // Nobody to tell, and still no panic.
    for args in [&["info", "nowhere"][..], &["nothing"]] {
        let (status, stdout, _) = texts(s.command(args).stderr(full()).output());
        assert_eq!((status, stdout.as_str()), (Some(2), ""));
    }
}

/// A disk that fills up half-way through a file: the largest file that the process may write is smaller
/// than what it writes.
#[cfg(unix)]
#[test]
fn a_file_that_cannot_be_finished_is_not_there() {
    // 1 block is 512 bytes or 1 KB. The signal that comes with the error would end the program.
    const SCRIPT: &str = r#"trap "" XFSZ; ulimit -f 1; exec "$0" "$@""#;
    let s = Scratch::new();
    s.write("l", b"what was there");
    small_model().save(s.path("old")).unwrap();
    s.write("many", &tokens_file(&fixture::repeated_sequences(8, 16, 0)));
    for line in [
        "run fixture:induction --tokens many --out l",
        "run fixture:induction --tokens many --out new",
        "cache fixture:induction --tokens many --names * --out new",
        "process fixture:induction new",
        "process fixture:induction new/folder/in/folder",
        "process fixture:induction old",
    ] {
        let before = s.contents();
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, PROGRAM]).args(line.split(' '));
        let output = texts(shell.current_dir(s.0.path()).output());
        check_complaint(line, output, ": File too large");
        s.assert_unchanged(&before, line);
    }
}

/// The same on a real file system without room, where this process may mount one.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_keeps_what_it_held() {
    const SCRIPT: &str = r#"
        mount -t tmpfs -o size=12k tmpfs disk || { echo "no tmpfs"; exit 0; }
        echo "what was there" > disk/l
        "$0" run fixture:induction --tokens many --out disk/l; echo "status $?"
        "$0" process fixture:induction disk/made; echo "status $?"
        ls -A disk; cat disk/l"#;
    let s = Scratch::new();
    s.write("disk/below", b"");
    s.write("many", &tokens_file(&fixture::repeated_sequences(8, 16, 0)));
    // The mount ends with the script that made it.
    let mut shell = Command::new("unshare");
    shell.args(["-rm", "sh", "-c", SCRIPT, PROGRAM]);
    let output = shell.current_dir(s.0.path()).output();
    let may_not = output
        .as_ref()
        .map_or(true, |o| !o.status.success() || o.stdout == b"no tmpfs\n");
    if may_not {
        eprintln!("skipped: no right to mount a tmpfs: {output:?}");
        return;
    }
    let (_, stdout, stderr) = texts(output);
    assert_eq!(
        stdout, "status 2\nstatus 2\nl\nwhat was there\n",
        "{stderr}"
    );
    assert_eq!(
        stderr,
        "error: disk/l: No space left on device (os error 28)\n\
         error: disk/made/model.safetensors: No space left on device (os error 28)\n"
    );
}

/// File names are bytes; JSON and messages show them as well as text can.
#[cfg(target_os = "linux")]
#[test]
fn an_output_whose_name_is_not_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let s = Scratch::new();
    let name = std::ffi::OsStr::from_bytes(b"l\xff");
    for more in [&[][..], &["--json"]] {
        let mut command = s.command(&["run", "model", "--tokens", "data", "--out"]);
        let (status, stdout, stderr) = texts(command.arg(name).args(more).output());
        assert_eq!((status, stderr.as_str()), (Some(0), ""));
        assert!(stdout.contains("l\u{fffd}"), "{stdout}");
        assert!(s.0.path().join(name).exists());
    }
}
