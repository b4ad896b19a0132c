//! The published prompts, and how they are drawn for a model's own tokens.

use super::Prompts;
use crate::error::{Error, Result};
use crate::model::{Config, Tokens};
use crate::text::{Special, Tokenizer};
use rand::rngs::ChaCha8Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;

/// The fifteen templates with the subject named first (BABA); `[A]` is the indirect object, which comes next. With the first
/// two names exchanged they are the other fifteen (ABBA).
///
/// Source: Wang et al. (2022), appendix E, and the code that goes with it.
const TEMPLATES: [&str; 15] = [
    "Then, [B] and [A] went to the [PLACE]. [B] gave a [OBJECT] to",
    "Then, [B] and [A] had a lot of fun at the [PLACE]. [B] gave a [OBJECT] to",
    "Then, [B] and [A] were working at the [PLACE]. [B] decided to give a [OBJECT] to",
    "Then, [B] and [A] were thinking about going to the [PLACE]. [B] wanted to give a [OBJECT] to",
    "Then, [B] and [A] had a long argument, and afterwards [B] said to",
    "After [B] and [A] went to the [PLACE], [B] gave a [OBJECT] to",
    "When [B] and [A] got a [OBJECT] at the [PLACE], [B] decided to give it to",
    "When [B] and [A] got a [OBJECT] at the [PLACE], [B] decided to give the [OBJECT] to",
    "While [B] and [A] were working at the [PLACE], [B] gave a [OBJECT] to",
    "While [B] and [A] were commuting to the [PLACE], [B] gave a [OBJECT] to",
    "After the lunch, [B] and [A] went to the [PLACE]. [B] gave a [OBJECT] to",
    "Afterwards, [B] and [A] went to the [PLACE]. [B] gave a [OBJECT] to",
    "Then, [B] and [A] had a long argument. Afterwards [B] said to",
    "The [PLACE] [B] and [A] went to had a [OBJECT]. [B] gave it to",
    "Friends [B] and [A] found a [OBJECT] at the [PLACE]. [B] gave it to",
];

/// Both orders of each.
pub(super) const PUBLISHED: usize = 2 * TEMPLATES.len();

const PLACES: [&str; 8] = [
    "store",
    "garden",
    "restaurant",
    "school",
    "hospital",
    "office",
    "house",
    "station",
];

const OBJECTS: [&str; 8] = [
    "ring",
    "kiss",
    "bone",
    "basketball",
    "computer",
    "necklace",
    "drink",
    "snack",
];

/// Common given names. Those that are one token of a model are used.
const NAMES: [&str; 64] = [
    "Aaron",
    "Adam",
    "Alex",
    "Alice",
    "Amy",
    "Andrew",
    "Anna",
    "Anthony",
    "Arthur",
    "Ben",
    "Brian",
    "Charles",
    "Christopher",
    "Daniel",
    "David",
    "Edward",
    "Elizabeth",
    "Emily",
    "Emma",
    "Eric",
    "Frank",
    "George",
    "Henry",
    "Jack",
    "Jacob",
    "James",
    "Jane",
    "Jason",
    "Jennifer",
    "Jessica",
    "John",
    "Jonathan",
    "Joseph",
    "Joshua",
    "Justin",
    "Kate",
    "Kevin",
    "Laura",
    "Lily",
    "Lisa",
    "Louis",
    "Lucy",
    "Luke",
    "Maria",
    "Mark",
    "Martin",
    "Mary",
    "Matthew",
    "Michael",
    "Michelle",
    "Patrick",
    "Paul",
    "Peter",
    "Rachel",
    "Richard",
    "Robert",
    "Ryan",
    "Sarah",
    "Simon",
    "Steven",
    "Thomas",
    "Tim",
    "Tom",
    "William",
];

/// A template in one of its orders, with its place and object.
#[derive(Clone, Copy)]
struct Sentence {
    template: usize,
    /// Whether the indirect object is named first.
    abba: bool,
    place: &'static str,
    object: &'static str,
}

impl Sentence {
    /// Every one there is.
    fn all() -> Vec<Sentence> {
        let mut all = Vec::new();
        for (template, text) in TEMPLATES.iter().enumerate() {
            // What a template has no word for is one and the same.
            let some = |word: &str, of: &[&'static str]| match text.contains(word) {
                true => of.to_vec(),
                false => vec![""],
            };
            for abba in [false, true] {
                for place in some("[PLACE]", &PLACES) {
                    for object in some("[OBJECT]", &OBJECTS) {
                        all.push(Sentence {
                            template,
                            abba,
                            place,
                            object,
                        });
                    }
                }
            }
        }
        all
    }

    /// The text, with these names in the places of the indirect object and of the subject's first and second mention.
    fn text(self, [io, s1, s2]: [&str; 3]) -> String {
        let (first, second) = match self.abba {
            true => (io, s1),
            false => (s1, io),
        };
        let text = TEMPLATES[self.template];
        let text = text.replacen("[B]", first, 1).replacen("[A]", second, 1);
        let text = text.replace("[B]", s2).replace("[PLACE]", self.place);
        text.replace("[OBJECT]", self.object)
    }
}

impl Prompts {
    /// `n` seeded prompts by the published templates, as many of either order, each with its corrupted one: the three
    /// mentions are of three other names there (the paper's ABC).
    ///
    /// All are of one length: that which most of the templates can have in this model's tokens. Names are of one token.
    ///
    /// # Errors
    /// When fewer than five of the names are one token of the vocabulary, there are no prompts asked for, or the tokenizer
    /// fails.
    pub fn draw(tokenizer: &Tokenizer, config: &Config, n: usize, seed: u64) -> Result<Self> {
        let names = names(tokenizer, config)?;
        /// The indirect object, the subject, and three others in the corrupted prompt.
        const NEEDED: usize = 5;
        if names.len() < NEEDED {
            return Err(Error::TooFew {
                found: names.len(),
                least: NEEDED,
                message: format!(
                    "{} of {} names are one token of this model, expected {NEEDED} at least",
                    names.len(),
                    NAMES.len()
                ),
            });
        }
        if n == 0 {
            return Err(Error::TooFew {
                found: 0,
                least: 1,
                message: "0 prompts, expected one at least".into(),
            });
        }
        let (sentences, templates) = of_one_length(tokenizer, &names)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mut clean, mut corrupt, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..n {
            let sentence = drawn(&sentences, i % 2 == 1, &mut rng);
            let mut order: Vec<usize> = (0..names.len()).collect();
            let (own, _) = order.partial_shuffle(&mut rng, NEEDED);
            let [io, s, c1, c2, c3] = [0, 1, 2, 3, 4].map(|i| &names[own[i]]);
            let tokens = |text: String| tokenizer.encode(&text, Special::AsFiles);
            clean.push(tokens(sentence.text([io.0, s.0, s.0]))?);
            corrupt.push(tokens(sentence.text([c1.0, c2.0, c3.0]))?);
            pairs.push([io.1, s.1]);
        }
        let tokens = |rows: &[Vec<i64>]| {
            let pos = rows[0].len();
            match rows.iter().all(|row| row.len() == pos) {
                true => Ok(Tokens::from_rows(rows)),
                false => Err(Error::NotCovered(
                    "this tokenizer splits a sentence otherwise when its names are others",
                )),
            }
        };
        let word = |token: i64| tokenizer.word(token);
        let mut prompts = Prompts::of(tokens(&clean)?, tokens(&corrupt)?, &pairs, &word)?;
        prompts.templates = Some([templates, PUBLISHED]);
        prompts.names_of_one_token = Some(names.len());
        Ok(prompts)
    }
}

/// The names that are one token, blank and all, with that token.
fn names(tokenizer: &Tokenizer, config: &Config) -> Result<Vec<(&'static str, usize)>> {
    let mut found = Vec::new();
    for name in NAMES {
        let own = format!(" {name}");
        let token = tokenizer.first_token(&own)?;
        let there = (token as usize) < config.d_vocab;
        if there && tokenizer.word(token) == own {
            found.push((name, token as usize));
        }
    }
    Ok(found)
}

/// The sentences of the length that most templates can have, of equals the shortest, and how many templates those are.
fn of_one_length(
    tokenizer: &Tokenizer,
    names: &[(&'static str, usize)],
) -> Result<(Vec<Sentence>, usize)> {
    let mut by_length: BTreeMap<usize, Vec<Sentence>> = BTreeMap::new();
    for sentence in Sentence::all() {
        let text = sentence.text([names[0].0, names[1].0, names[1].0]);
        let length = tokenizer.encode(&text, Special::AsFiles)?.len();
        by_length.entry(length).or_default().push(sentence);
    }
    let templates = |sentences: &[Sentence]| {
        let mut own: Vec<_> = sentences.iter().map(|s| (s.template, s.abba)).collect();
        own.sort_unstable();
        own.dedup();
        own.len()
    };
    let most = by_length.into_values().rev();
    let most = most.max_by_key(|sentences| templates(sentences));
    let sentences = most.expect("there are sentences");
    let n = templates(&sentences);
    Ok((sentences, n))
}

/// A sentence of an order: first its template is drawn, then its words.
fn drawn(sentences: &[Sentence], abba: bool, rng: &mut impl Rng) -> Sentence {
    let of_order = |s: &&Sentence| s.abba == abba;
    let mut templates: Vec<usize> = (sentences.iter().filter(of_order))
        .map(|s| s.template)
        .collect();
    templates.dedup();
    let template = *templates.choose(rng).expect("both orders are as long");
    let own: Vec<&Sentence> = sentences
        .iter()
        .filter(|s| s.abba == abba && s.template == template)
        .collect();
    **own.choose(rng).expect("the template has some")
}
