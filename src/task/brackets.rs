//! Balanced brackets: the classifier of Redwood Research's and ARENA's exercises.

use super::{InputPart, InputSpace, Task, Values, Vocabulary};
use crate::error::{Error, Result};
use crate::model::Tokens;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

const START: i64 = 0;
const PAD: i64 = 1;
const END: i64 = 2;
const OPEN: i64 = 3;
const CLOSE: i64 = 4;

/// How many of the published strings are balanced, and how many there are.
const BALANCED: (u32, u32) = (2284, 5000);

/// `[start]`, brackets, `[end]`, then `[pad]`; class 1 where the brackets are balanced, read at position 0.
///
/// What it generates has the distribution of the published strings. 2,284 of 5,000 are balanced: coins are
/// tossed for brackets until one closes what nothing opened, and what came before it is taken if its length is
/// within bounds, so that lengths are distributed as `C_n / 4ⁿ` and each balanced string of a length is as
/// likely. The others have an even length, each as likely, and a toss for every bracket; those that come out
/// balanced are drawn again.
///
/// # Source
/// The balanced bracket classifier: strings of up to 40 brackets, `n_ctx` 42. Its generator was not published;
/// this one agrees with its strings' lengths, failures, and strings of each length.
///
/// ```
/// use pathsum::task::{Brackets, Task};
/// let task = Brackets::default();
/// assert_eq!(task.describe(&task.parse("(()())")?), "(()()) → balanced");
/// assert_eq!(task.describe(&task.parse("())(")?), "())( → unbalanced");
/// # Ok::<(), pathsum::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Brackets {
    longest: usize,
    vocabulary: Vocabulary,
}

/// In which ways a string is unbalanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Failures {
    /// There are not as many closing brackets as opening ones.
    pub total_elevation: bool,
    /// Read from the right, more brackets were opened somewhere than closed.
    pub negative: bool,
}

impl Failures {
    /// Whether there is one.
    pub fn any(self) -> bool {
        self.total_elevation || self.negative
    }
}

impl Default for Brackets {
    /// The write-up's own: up to 40 brackets.
    fn default() -> Self {
        Brackets::new(40)
    }
}

impl Brackets {
    /// Strings of up to `longest` brackets.
    ///
    /// # Panics
    /// When `longest` is 0 or odd: an odd string cannot be balanced.
    #[track_caller]
    pub fn new(longest: usize) -> Self {
        assert!(
            longest > 0 && longest.is_multiple_of(2),
            "{longest} brackets"
        );
        Brackets {
            longest,
            vocabulary: Vocabulary::new(["[start]", "[pad]", "[end]", "(", ")"]),
        }
    }

    /// The token whose keys are masked: a model's `pad_token`.
    pub fn pad_token(&self) -> usize {
        PAD as usize
    }

    /// The sequence of a string of brackets.
    ///
    /// # Errors
    /// When it has other characters, or too many.
    pub fn sequence(&self, brackets: &str) -> Result<Vec<i64>> {
        let mut sequence = vec![START];
        for (i, c) in brackets.chars().enumerate() {
            sequence.push(match c {
                '(' => OPEN,
                ')' => CLOSE,
                _ => {
                    return Err(Error::Sequence {
                        sequence: None,
                        message: format!("`{}` at {i}: expected ( or )", c.escape_debug()),
                    });
                }
            });
        }
        if sequence.len() > self.longest + 1 {
            return Err(Error::Sequence {
                sequence: None,
                message: format!(
                    "{} brackets, expected at most {}",
                    sequence.len() - 1,
                    self.longest
                ),
            });
        }
        sequence.push(END);
        sequence.resize(self.positions(), PAD);
        Ok(sequence)
    }

    /// What is closed less what is opened from each position on: the elevation, read from the right.
    ///
    /// The write-up's solution: it must be 0 at position 0 and nowhere below 0.
    pub fn elevation(sequence: &[i64]) -> Vec<i64> {
        let mut above = 0;
        let mut elevation: Vec<i64> = (sequence.iter().rev())
            .map(|&t| {
                above += match t {
                    CLOSE => 1,
                    OPEN => -1,
                    _ => 0,
                };
                above
            })
            .collect();
        elevation.reverse();
        elevation
    }

    /// In which ways a sequence is unbalanced, by its elevation.
    pub fn failures(sequence: &[i64]) -> Failures {
        let elevation = Self::elevation(sequence);
        Failures {
            total_elevation: elevation[0] != 0,
            negative: elevation.iter().any(|&e| e < 0),
        }
    }

    /// Whether a string is balanced, bracket by bracket from the left: the write-up's loop.
    pub fn balanced_by_loop(brackets: &str) -> bool {
        let mut open = 0usize;
        for c in brackets.chars() {
            match (c, open) {
                ('(', _) => open += 1,
                (_, 0) => return false,
                _ => open -= 1,
            }
        }
        open == 0
    }

    /// `tall(i/2) + ")(" + tall((n-i)/2)`, where `tall(k)` is `k` opening and `k` closing brackets: the
    /// write-up's adversarial strings, of `n + 2` brackets, of which the two in the middle fail.
    ///
    /// # Panics
    /// When `n` or `i` is odd, or `i > n`.
    #[track_caller]
    pub fn adversarial(n: usize, i: usize) -> String {
        assert!(
            n.is_multiple_of(2) && i.is_multiple_of(2) && i <= n,
            "{i} of {n}"
        );
        let tall = |k: usize| "(".repeat(k) + &")".repeat(k);
        tall(i / 2) + ")(" + &tall((n - i) / 2)
    }

    /// A balanced string: tosses until a bracket closes what nothing opened; what comes before it.
    fn balanced(&self, rng: &mut ChaCha8Rng) -> String {
        loop {
            let (mut brackets, mut open) = (String::new(), 0);
            while brackets.len() <= self.longest {
                if rng.random() {
                    brackets.push('(');
                    open += 1;
                } else if open > 0 {
                    brackets.push(')');
                    open -= 1;
                } else {
                    break;
                }
            }
            if (1..=self.longest).contains(&brackets.len()) {
                return brackets;
            }
        }
    }

    fn unbalanced(&self, rng: &mut ChaCha8Rng) -> String {
        loop {
            let len = 2 * rng.random_range(1..=self.longest / 2);
            let toss = |_| if rng.random() { '(' } else { ')' };
            let brackets: String = (0..len).map(toss).collect();
            if !Self::balanced_by_loop(&brackets) {
                return brackets;
            }
        }
    }
}

impl Task for Brackets {
    fn name(&self) -> String {
        "brackets".into()
    }

    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    fn classes(&self) -> Vec<String> {
        vec!["unbalanced".into(), "balanced".into()]
    }

    fn positions(&self) -> usize {
        self.longest + 2
    }

    fn form(&self) -> String {
        format!(
            "[start], at most {} brackets, [end], and [pad] from there on",
            self.longest
        )
    }

    fn read_at(&self) -> Vec<usize> {
        vec![0]
    }

    fn label_key(&self) -> Option<&str> {
        Some("is_balanced")
    }

    fn tokens(&self, size: usize, seed: u64) -> Tokens {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut ids = Vec::with_capacity(size * self.positions());
        for _ in 0..size {
            let brackets = if rng.random_ratio(BALANCED.0, BALANCED.1) {
                self.balanced(&mut rng)
            } else {
                self.unbalanced(&mut rng)
            };
            ids.extend(self.sequence(&brackets).expect("brackets within bounds"));
        }
        Tokens::new(size, self.positions(), ids)
    }

    fn check(&self, sequence: &[i64]) -> Result<()> {
        self.vocabulary.check(sequence, self.positions())?;
        self.vocabulary.expect(sequence, 0, "[start]")?;
        let is_bracket = |t: &i64| [OPEN, CLOSE].contains(t);
        let brackets = sequence[1..].iter().take_while(|t| is_bracket(t)).count();
        if brackets > self.longest {
            return Err(Error::Sequence {
                sequence: None,
                message: format!(
                    "position {} is {}, expected [end]",
                    self.longest + 1,
                    self.vocabulary.name(sequence[self.longest + 1])
                ),
            });
        }
        self.vocabulary.expect(sequence, brackets + 1, "[end]")?;
        (brackets + 2..sequence.len())
            .try_for_each(|p| self.vocabulary.expect(sequence, p, "[pad]"))
    }

    fn solve(&self, sequence: &[i64]) -> Vec<usize> {
        vec![usize::from(!Self::failures(sequence).any())]
    }

    /// Every string of brackets, the empty one too.
    fn space(&self) -> Option<InputSpace> {
        let values = Values::Strings {
            alphabet: vec![OPEN, CLOSE],
            lengths: 0..=self.longest,
        };
        let parts = vec![
            InputPart::Fixed(START),
            InputPart::All,
            InputPart::Fixed(END),
        ];
        InputSpace::new(values, parts, Some((PAD, self.positions()))).ok()
    }

    /// A string of brackets.
    fn parse(&self, text: &str) -> Result<Vec<i64>> {
        self.sequence(text.trim())
    }

    /// The brackets alone.
    fn text(&self, sequence: &[i64]) -> String {
        let brackets = sequence.iter().filter(|&&t| t == OPEN || t == CLOSE);
        brackets.map(|&t| self.vocabulary.name(t)).collect()
    }
}
