//! Pairs of a prompt and its corrupted one, and where in it what stands.

use crate::error::{Error, Result};
use crate::intervene::Part;
use crate::metric::{Answers, Contrast};
use crate::model::{Config, Tokens};
use serde::Serialize;
use std::collections::BTreeMap;

/// A place of a prompt that has a part in the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The indirect object's name.
    Io,
    /// The subject's first mention.
    S1,
    /// The token after it.
    AfterS1,
    /// The subject's second mention.
    S2,
    /// The last token, after which the answer comes.
    End,
}

impl Place {
    /// All of them.
    pub const ALL: [Place; 5] = [Place::Io, Place::S1, Place::AfterS1, Place::S2, Place::End];

    /// As the paper calls it.
    pub fn name(self) -> &'static str {
        match self {
            Place::Io => "IO",
            Place::S1 => "S1",
            Place::AfterS1 => "S1+1",
            Place::S2 => "S2",
            Place::End => "END",
        }
    }
}

/// Pairs of a clean and a corrupted prompt.
#[derive(Clone, Debug)]
pub struct Prompts {
    /// The prompts.
    pub clean: Tokens,
    /// The same with other names.
    pub corrupt: Tokens,
    /// Of each prompt the tokens of the indirect object and of the subject.
    pub names: Vec<[usize; 2]>,
    /// Of each prompt where the places are, in the order of [`Place::ALL`].
    pub places: Vec<[usize; 5]>,
    /// The clean prompts' words, and the corrupted ones'.
    pub words: [Vec<Vec<String>>; 2],
    /// How many of the published templates are of this length, and of how many; where they were drawn.
    pub templates: Option<[usize; 2]>,
    /// Of how many names they were drawn.
    pub names_of_one_token: Option<usize>,
}

impl Prompts {
    /// Of one's own prompts, all of one length, with the tokens of the indirect object and the subject of each.
    ///
    /// # Errors
    /// When there are none, the two batches differ in shape, the names are not as many, or a prompt has not its indirect
    /// object once and its subject twice before its last token, one of them before the other two.
    pub fn of(
        clean: Tokens,
        corrupt: Tokens,
        names: &[[usize; 2]],
        word: &dyn Fn(i64) -> String,
    ) -> Result<Self> {
        let shape = |t: &Tokens| [t.batch(), t.pos()];
        if clean.batch() == 0 || shape(&clean) != shape(&corrupt) || names.len() != clean.batch() {
            return Err(Error::Mismatch(format!(
                "{:?} clean tokens, {:?} corrupted ones and the names of {} prompts, expected as many, and one at least",
                shape(&clean),
                shape(&corrupt),
                names.len()
            )));
        }
        let places = (0..clean.batch()).map(|i| places(clean.sequence(i), names[i], i));
        let places = places.collect::<Result<_>>()?;
        let words = |tokens: &Tokens| {
            let of = |i| tokens.sequence(i).iter().map(|&t| word(t)).collect();
            (0..tokens.batch()).map(of).collect()
        };
        Ok(Prompts {
            words: [words(&clean), words(&corrupt)],
            clean,
            corrupt,
            names: names.to_vec(),
            places,
            templates: None,
            names_of_one_token: None,
        })
    }

    /// How many prompts there are.
    pub fn count(&self) -> usize {
        self.clean.batch()
    }

    /// Where a place is in a prompt.
    pub fn at(&self, prompt: usize, place: Place) -> usize {
        self.places[prompt][place as usize]
    }

    /// The last position of all.
    pub fn end(&self) -> usize {
        self.clean.pos() - 1
    }

    /// The indirect object as what is right, read at the end.
    pub fn answers(&self) -> Answers {
        let io = self.names.iter().map(|names| names[0]);
        Answers::new(&[self.end()], io.collect())
    }

    /// The indirect object's logit less the subject's.
    pub fn metric(&self, answers: &Answers) -> Result<Contrast> {
        let s = self.names.iter().map(|names| names[1]);
        Contrast::against(answers, s.collect())
    }

    /// The parts of a value that are at a place: one for each position at which some prompts have it.
    pub(super) fn parts(&self, place: Place) -> Vec<Part> {
        let mut by_position: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for i in 0..self.count() {
            by_position.entry(self.at(i, place)).or_default().push(i);
        }
        let part = |(p, sequences)| Part::all().sequences(sequences).positions([p]);
        by_position.into_iter().map(part).collect()
    }

    /// Whether a model has these tokens, and logits for the names.
    pub(super) fn check(&self, config: &Config) -> Result<()> {
        self.corrupt.check(config)?;
        self.answers().check(config, &self.clean)
    }
}

fn places(tokens: &[i64], [io, s]: [usize; 2], prompt: usize) -> Result<[usize; 5]> {
    let end = tokens.len() - 1;
    let of = |name: usize| -> Vec<usize> {
        let own = tokens[..end].iter().enumerate();
        own.filter(|&(_, &t)| t == name as i64)
            .map(|(p, _)| p)
            .collect()
    };
    match (&of(io)[..], &of(s)[..]) {
        (&[io], &[s1, s2]) if io < s2 => Ok([io, s1, s1 + 1, s2, end]),
        (io, s) => Err(Error::Mismatch(format!(
            "prompt {prompt} has its indirect object at positions {io:?} and its subject at {s:?}, expected one, and two of \
             which one comes after it"
        ))),
    }
}
