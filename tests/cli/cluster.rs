//! A job array of Slurm, on a cluster that is this machine: `docs/cluster/`.

use crate::program::{PROGRAM, Scratch, random_model, tokens_file};
use pathsum::Tokens;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A Slurm of one node, for as long as this is there.
struct Slurm {
    script: PathBuf,
    folder: PathBuf,
}

impl Slurm {
    /// Started in a folder; none where Debian's packages are not installed, or this is not root.
    fn start(folder: PathBuf) -> Option<Self> {
        let there = |program: &str| {
            let found = Command::new("sh")
                .args(["-c", &format!("command -v {program}")])
                .output();
            found.is_ok_and(|found| found.status.success())
        };
        let missing = ["munged", "slurmctld", "slurmd", "sbatch"]
            .into_iter()
            .find(|p| !there(p));
        if let Some(missing) = missing {
            eprintln!(
                "skipped: no {missing} here (Debian's munge, slurmctld, slurmd, slurm-client)"
            );
            return None;
        }
        let user = Command::new("id").arg("-u").output().unwrap().stdout;
        if user.trim_ascii() != b"0" {
            eprintln!("skipped: Slurm's daemons are started by root alone");
            return None;
        }
        let cluster = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cluster");
        let slurm = Slurm {
            script: cluster.join("single_node.sh"),
            folder,
        };
        slurm.daemons("start");
        Some(slurm)
    }

    fn daemons(&self, what: &str) {
        let mut sh = Command::new("sh");
        let status = sh.arg(&self.script).arg(what).arg(&self.folder).status();
        assert!(status.unwrap().success(), "{what}");
    }

    /// What one of Slurm's commands prints.
    fn ask(&self, s: &Scratch, program: &str, args: &[&str]) -> String {
        let folder = Path::new(PROGRAM).parent().unwrap().to_path_buf();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = [folder].into_iter().chain(std::env::split_paths(&path));
        let output = Command::new(program)
            .args(args)
            .current_dir(s.0.path())
            .env("SLURM_CONF", self.folder.join("slurm.conf"))
            .env("PATH", std::env::join_paths(path).unwrap())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).trim().to_string();
        assert!(output.status.success(), "{program}: {said} {output:?}");
        said
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        self.daemons("stop");
    }
}

#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "{what} takes too long"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Eight shards, one of which is killed while it runs and queued again.
#[test]
fn a_job_array_is_the_whole_to_the_bit() {
    let s = Scratch::new();
    let Some(slurm) = Slurm::start(s.path("slurm")) else {
        return;
    };
    let model = random_model::<f64>(
        r#"{"n_layers": 4, "d_model": 32, "n_ctx": 24, "d_head": 8, "n_heads": 8, "d_mlp": 64,
            "act_fn": "gelu_new", "d_vocab": 19}"#,
    );
    model.save(s.path("large")).unwrap();
    for (name, seed) in [("clean", 1), ("corrupt", 2)] {
        let tokens = Tokens::random(model.config(), 6, seed);
        s.write(&format!("{name}.safetensors"), &tokens_file(&tokens));
    }
    let task = "edges large --clean clean.safetensors --corrupt corrupt.safetensors --metric logit_diff:3-9 --method exact";
    s.ok(&format!("{task} --out whole.json"));

    let sbatch = slurm.script.with_file_name("edges.sbatch");
    let array = ["--parsable", "--array=1-8", "--cpus-per-task=1"];
    let rest: Vec<&str> = [sbatch.to_str().unwrap(), "shards"]
        .into_iter()
        .chain(task.split(' '))
        .collect();
    let job = slurm.ask(&s, "sbatch", &[&array[..], &rest].concat());
    let third = format!("{job}_3");
    let state = || slurm.ask(&s, "squeue", &["--noheader", "--array", "--format=%i %T"]);
    until("the third shard", || {
        state().contains(&format!("{third} RUNNING"))
    });
    slurm.ask(&s, "scontrol", &["requeue", &third]);
    until("the array", || state().is_empty());

    let shards: Vec<String> = (1..=8).map(|i| format!("shards/{i}.json")).collect();
    s.ok(&format!("merge {} --out merged.json", shards.join(" ")));
    assert!(
        s.read("merged.json") == s.read("whole.json"),
        "merged shards are not the whole"
    );
}
