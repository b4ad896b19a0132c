//! `pathsum study`: a published analysis done again, and its report.

mod language;

use super::args::{Common, Json, ModelArg};
use super::batch::SequenceArgs;
use super::output::{print, progress};
use super::report::summary;
use super::train::RECIPE;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use indicatif::ProgressBar;
use language::Drawn;
use pathsum::fixture::Fixture;
use pathsum::report::{write_both, write_json};
use pathsum::study::modular_addition::{Training, Trial};
use pathsum::study::{
    Story, brackets, induction, ioi, modular_addition, palindrome, sorted_list, two_integer,
};
use pathsum::task::{BuiltIn, LabelTable, ModularAddition, Operation};
use pathsum::train::{Recipe, Trained, TrainingData, snapshots, training_curve};
use pathsum::{Model, Par, Precision, TensorFile, Tokens};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Do a published analysis again on a model, and write its report
///
/// The report, report.html, opens in any browser without a network; results.json has every number in it.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum study palindrome\n  pathsum study brackets --model fixture:brackets --out report\n  pathsum study induction"
)]
pub struct Args {
    /// The analysis
    #[arg(value_name = "STUDY")]
    study: Study,
    /// Another model of the same task than the embedded one, as other subcommands take it; of ioi, which has none, the folder
    /// of a language model with its tokenizer
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// The config.json of a .pt (the one beside it unless given)
    #[arg(long, value_name = "FILE", requires = "model")]
    config: Option<PathBuf>,
    #[command(flatten)]
    sequences: SequenceArgs,
    /// A folder with a write-up's own sequences by their names, dataset.safetensors (for palindromes also dataset_100,
    /// dataset_500 and pairs; for two-integer labels.safetensors); what is not there is generated
    #[arg(long, value_name = "DIR", conflicts_with_all = ["tokens", "sequence", "labels"])]
    data: Option<PathBuf>,
    /// Of two-integer alone: a safetensors file with `labels`, [A, B] (those of the embedded model unless given)
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Of modular-addition alone: the seed of the split into pairs that were trained on and others (the recipe's beside the
    /// model, else found by which pairs are answered best)
    #[arg(long, value_name = "SEED")]
    split: Option<u32>,
    #[command(flatten)]
    drawn: Drawn,
    /// The folder for report.html and results.json (named after the study unless given)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write results.json to FILE, and the folder only with --out; - prints it
    #[arg(long, value_name = "FILE", value_parser = Json::file)]
    json: Option<Json>,
}

/// The analyses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Study {
    /// Is a sequence a palindrome? (July 2023 mechanistic interpretability challenge)
    Palindrome,
    /// How is a list sorted? (October 2023 mechanistic interpretability challenge)
    SortedList,
    /// Are brackets balanced? (the balanced bracket classifier)
    Brackets,
    /// Which label has a pair of integers? (the second challenge of "EIS VII")
    TwoInteger,
    /// How is addition modulo a number learned? ("Progress measures for grokking", "A Toy Model of Universality")
    ModularAddition,
    /// Who was given a drink? A language model's indirect objects ("Interpretability in the Wild")
    Ioi,
    /// What came after the same token before? A language model's induction heads
    Induction,
}

/// What a study looks at.
enum From {
    /// What it generates itself.
    Nothing,
    /// A folder with the write-up's sets.
    Folder(PathBuf),
    /// Sequences.
    Tokens(Tokens),
    /// Labels of all pairs.
    Labels(LabelTable),
    /// The seed of a split of all pairs.
    Split(u32),
}

impl Study {
    /// How the command line spells it.
    fn name(self) -> String {
        let value = self.to_possible_value().expect("none is skipped");
        value.get_name().to_string()
    }

    /// The embedded model of its task.
    fn fixture(self) -> String {
        format!("fixture:{}", self.name().replace('-', "_"))
    }

    /// How many parts it reports as it goes.
    fn parts(self) -> usize {
        match self {
            Study::Palindrome => palindrome::PARTS,
            Study::SortedList => sorted_list::PARTS,
            Study::Brackets => brackets::PARTS,
            Study::TwoInteger => two_integer::PARTS,
            Study::ModularAddition => modular_addition::PARTS,
            Study::Ioi => ioi::PARTS,
            Study::Induction => induction::PARTS,
        }
    }

    /// Whether it is of a language model, whose prompts are drawn for it.
    fn of_language(self) -> bool {
        matches!(self, Study::Ioi | Study::Induction)
    }

    /// Carries it out on a model and tells it. `name` is the model's.
    fn story(self, name: &str, model: &Model<f64>, from: From, bar: &ProgressBar) -> Result<Story> {
        let begins = |part: &str| {
            bar.set_message(part.to_string());
            bar.inc(1);
        };
        Ok(match self {
            Study::Palindrome => {
                let data = match from {
                    From::Folder(folder) => palindrome::Data::open(folder)?,
                    From::Tokens(tokens) => palindrome::Data::of(tokens)?,
                    _ => palindrome::Data::generated()?,
                };
                palindrome::study(model, &data, Par::Rayon, &begins)?.story(name)
            }
            Study::SortedList => {
                let data = match from {
                    From::Folder(folder) => sorted_list::Data::open(folder)?,
                    From::Tokens(tokens) => sorted_list::Data::of(tokens),
                    _ => sorted_list::Data::generated(),
                };
                sorted_list::study(model, &data, &begins)?.story(name)
            }
            Study::Brackets => {
                let data = match from {
                    From::Folder(folder) => brackets::Data::open(folder)?,
                    From::Tokens(tokens) => brackets::Data::of(tokens)?,
                    _ => brackets::Data::generated()?,
                };
                brackets::study(model, &data, Par::Rayon, &begins)?.story(name)
            }
            Study::TwoInteger => {
                let labels = match from {
                    From::Folder(folder) => LabelTable::open(folder.join("labels.safetensors"))?,
                    From::Labels(labels) => labels,
                    _ => LabelTable::bands(),
                };
                let mut study = two_integer::study(model, &labels, Par::Rayon, &begins)?;
                if let Some(pairs) = held_out(name) {
                    study = study.held_out(&pairs)?;
                }
                study.story(name)
            }
            Study::ModularAddition => {
                let recipe =
                    recipe_of(name, self).filter(|r| r.task.built_in() == BuiltIn::ModularAddition);
                let told = recipe.as_ref().and_then(split_of);
                let seed = match from {
                    From::Split(seed) => Some(seed),
                    _ => told,
                };
                let task = ModularAddition::new(
                    model.config().d_vocab_out.max(2),
                    operation_of(recipe.as_ref()),
                );
                let study = modular_addition::study(model, &task, seed, Par::Rayon, &begins)?;
                match training_of(name, model, &study)? {
                    Some(training) => study.trained(training).story(name),
                    None => study.story(name),
                }
            }
            Study::Ioi | Study::Induction => unreachable!("their prompts are drawn for the model"),
        })
    }
}

/// The pairs that a model of two integers was not trained on, where its recipe says so: that of the embedded model, or
/// the one in the folder that `pathsum train` wrote.
fn held_out(model: &str) -> Option<Tokens> {
    let recipe = recipe_of(model, Study::TwoInteger)?;
    let half = matches!(recipe.data, TrainingData::Half { .. });
    // The recipe of another task, or one whose labels are no longer there, says nothing of the pairs.
    let known = half && recipe.task.built_in() == BuiltIn::TwoInteger;
    known
        .then(|| recipe.draw().ok())?
        .map(|d| d.held_out.tokens)
}

/// The recipe of a study's embedded model, or that in the folder that `pathsum train` wrote.
fn recipe_of(model: &str, study: Study) -> Option<Recipe> {
    match study {
        Study::TwoInteger if model == study.fixture() => {
            Some(Recipe::built_in(BuiltIn::TwoInteger))
        }
        Study::ModularAddition if model == study.fixture() => {
            Some(Recipe::built_in(BuiltIn::ModularAddition))
        }
        _ => Recipe::open(Path::new(model).join(RECIPE)).ok(),
    }
}

/// The seed by which a recipe of modular addition splits all pairs, where it trains on the write-ups' share of them.
fn split_of(recipe: &Recipe) -> Option<u32> {
    match recipe.data {
        TrainingData::Share { share } if share == ModularAddition::SHARE => {
            u32::try_from(recipe.settings.seed).ok()
        }
        _ => None,
    }
}

/// What a recipe's task does with two residues.
fn operation_of(recipe: Option<&Recipe>) -> Operation {
    match recipe.map(|r| &r.task) {
        Some(Trained::ModularAddition { operation, .. }) => operation.unwrap_or_default(),
        _ => Operation::Add,
    }
}

/// How a model of modular addition was trained: the embedded one's, or what its folder has kept.
fn training_of(
    name: &str,
    model: &Model<f64>,
    study: &modular_addition::ModularAdditionStudy,
) -> Result<Option<Training>> {
    if name == Study::ModularAddition.fixture() {
        let json = Fixture::ModularAddition.training();
        return Ok(json.map(serde_json::from_str).transpose()?);
    }
    let trials = training_curve(name)?;
    let trial = |p: &pathsum::train::Progress| {
        p.held_out.map(|tried| Trial {
            step: p.step,
            train: p.loss,
            test: tried.loss,
            accuracy: tried.accuracy,
        })
    };
    let curve: Vec<Trial> = trials.iter().filter_map(trial).collect();
    if curve.is_empty() {
        return Ok(None);
    }
    let mut measures = Vec::new();
    for (step, path) in snapshots(name)? {
        let kept = Model::from_file(model.config().clone(), &TensorFile::open(&path)?)?;
        measures.push(study.measures(&kept, step, Par::Rayon)?);
    }
    Ok(Some(Training { curve, measures }))
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    let story = match args.study.of_language() {
        true => of_language(args, common)?,
        false => of_task(args, common)?,
    };
    finish(args, common, &story)
}

/// A study of a language model.
fn of_language(args: &Args, common: &Common) -> Result<Story> {
    let study = args.study.name();
    let other = args.sequences.given() || args.data.is_some() || common.limited_to().is_some();
    if other || args.labels.is_some() || args.split.is_some() {
        bail!(
            "{study} draws its own prompts, expected none of --tokens, --data, --limit, --labels and --split"
        );
    }
    let model = match (&args.model, args.study) {
        (Some(model), _) => model.clone(),
        (None, Study::Induction) => args.study.fixture(),
        (None, _) => {
            bail!("{study}: expected --model DIR, a language model's folder with its tokenizer")
        }
    };
    let from = ModelArg::of(model, args.config.clone());
    language::story(args.study, args.drawn, common, &from)
}

/// A study of a model of a task.
fn of_task(args: &Args, common: &Common) -> Result<Story> {
    if let Some(given) = args.drawn.given() {
        bail!(
            "{given}: {} draws no prompts, expected none",
            args.study.name()
        );
    }
    if common.dtype() == Precision::F32 {
        bail!("--dtype f32: studies compute in f64");
    }
    let labelled = args.study == Study::TwoInteger;
    if labelled && args.sequences.given() {
        bail!("--tokens: two-integer is of all pairs there are, expected --labels or neither");
    }
    if args.study == Study::ModularAddition && (args.sequences.given() || args.data.is_some()) {
        bail!("--tokens, --data: modular-addition is of all pairs there are, expected neither");
    }
    if let (Some(folder), true) = (&args.data, common.limited_to().is_some()) {
        bail!(
            "--data {}: a write-up's sets are taken whole, expected no --limit",
            folder.display()
        );
    }
    if let (false, Some(labels)) = (labelled, &args.labels) {
        bail!(
            "--labels {}: {} finds the labels itself, expected none",
            labels.display(),
            args.study.name()
        );
    }
    if let (true, Some(split)) = (args.study != Study::ModularAddition, args.split) {
        bail!(
            "--split {split}: {} looks at no split, expected none",
            args.study.name()
        );
    }
    let from = ModelArg::of(
        args.model.clone().unwrap_or_else(|| args.study.fixture()),
        args.config.clone(),
    );
    let model = from.load::<f64>()?;
    let of = match (&args.data, &args.labels) {
        (Some(folder), _) => From::Folder(folder.clone()),
        (_, Some(path)) => From::Labels(LabelTable::open(path)?),
        _ if args.split.is_some() => From::Split(args.split.unwrap_or_default()),
        _ if args.sequences.given() => {
            From::Tokens(args.sequences.read(common, &from, model.config())?.tokens)
        }
        _ => From::Nothing,
    };
    let bar = progress(common, &args.study.name(), args.study.parts());
    let story = args.study.story(&from.model, &model, of, &bar);
    bar.finish_and_clear();
    story
}

/// Writes and prints what was asked for.
fn finish(args: &Args, common: &Common, story: &Story) -> Result<ExitCode> {
    let json = args.json.as_ref().unwrap_or(&common.json);
    let mut written = Vec::new();
    if let Json::To(file) = json {
        write_json(story, file)?;
        written.push(file.clone());
    }
    let folder = match &args.out {
        Some(out) => Some(out.clone()),
        None => (*json == Json::No).then(|| args.study.name().into()),
    };
    if let Some(folder) = folder {
        written.extend(write_folder(story, &folder)?);
    }
    if *json == Json::Print {
        print(&format!("{}\n", serde_json::to_string(story)?))?;
    } else if !common.quiet {
        let names: Vec<String> = written.iter().map(|p| p.display().to_string()).collect();
        print(&format!(
            "{}\nwrote {}\n",
            summary(story),
            names.join(" and ")
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes both files into a folder, which is made where it is not there.
fn write_folder(story: &Story, folder: &Path) -> Result<[PathBuf; 2]> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let files = [folder.join("report.html"), folder.join("results.json")];
    write_both(story, &files[0], &files[1])?;
    Ok(files)
}
