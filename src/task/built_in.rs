//! The tasks that come with the crate, by name.

use super::{
    Brackets, MaxOfK, ModularAddition, Operation, Palindromes, SortedLists, Task, TwoIntegers,
};
use crate::error::{Error, Result};
use crate::model::Config;
use std::fmt;
use std::str::FromStr;

/// A task that comes with the crate.
///
/// ```
/// use pathsum::task::BuiltIn;
/// let task = "palindrome".parse::<BuiltIn>()?.task();
/// assert_eq!(task.generate(10, 0).batch(), 10);
/// let error = "bracket".parse::<BuiltIn>().unwrap_err();
/// assert_eq!(error.to_string(), "unknown task `bracket`; did you mean `brackets`?");
/// # Ok::<(), pathsum::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BuiltIn {
    /// [`Palindromes`]
    Palindrome,
    /// [`SortedLists`]
    SortedList,
    /// [`Brackets`]
    Brackets,
    /// [`TwoIntegers`]
    TwoInteger,
    /// [`MaxOfK`]
    MaxOfK,
    /// [`ModularAddition`]
    ModularAddition,
}

impl BuiltIn {
    /// All of them.
    pub const ALL: [BuiltIn; 6] = [
        BuiltIn::Palindrome,
        BuiltIn::SortedList,
        BuiltIn::Brackets,
        BuiltIn::TwoInteger,
        BuiltIn::MaxOfK,
        BuiltIn::ModularAddition,
    ];

    /// The task, at its write-up's sizes.
    pub fn task(self) -> Box<dyn Task> {
        match self {
            BuiltIn::Palindrome => Box::new(Palindromes::default()),
            BuiltIn::SortedList => Box::new(SortedLists::default()),
            BuiltIn::Brackets => Box::new(Brackets::default()),
            BuiltIn::TwoInteger => Box::new(TwoIntegers::default()),
            BuiltIn::MaxOfK => Box::new(MaxOfK::default()),
            BuiltIn::ModularAddition => Box::new(ModularAddition::default()),
        }
    }

    /// The task at a model's sizes, where a task has any: the numbers of [`MaxOfK`] are as many as its context has
    /// positions, out of as many as its vocabulary has; the modulus of [`ModularAddition`] is the number of its classes.
    ///
    /// ```
    /// use pathsum::fixture::Fixture;
    /// use pathsum::task::BuiltIn;
    /// let model = Fixture::MaxOfK.load::<f32>();
    /// assert_eq!(BuiltIn::MaxOfK.sized(model.config()).positions(), 4);
    /// ```
    pub fn sized(self, config: &Config) -> Box<dyn Task> {
        match self {
            BuiltIn::MaxOfK if config.n_ctx > 0 && config.d_vocab > 1 => {
                Box::new(MaxOfK::new(config.n_ctx, config.d_vocab))
            }
            BuiltIn::ModularAddition if config.d_vocab_out > 1 => {
                Box::new(ModularAddition::new(config.d_vocab_out, Operation::Add))
            }
            _ => self.task(),
        }
    }

    /// The built-in task that a model of this configuration can be asked, if there is exactly one.
    pub fn fitting(config: &Config) -> Option<BuiltIn> {
        // Of any model the task with its vocabulary could be asked; what is meant is the built-in one's.
        let fits = |built_in: &BuiltIn| {
            let (task, own) = (built_in.sized(config), built_in.task());
            task.vocabulary() == own.vocabulary() && task.check_model(config).is_ok()
        };
        let mut fitting = BuiltIn::ALL.into_iter().filter(fits);
        fitting.next().filter(|_| fitting.next().is_none())
    }

    fn name(self) -> &'static str {
        match self {
            BuiltIn::Palindrome => "palindrome",
            BuiltIn::SortedList => "sorted_list",
            BuiltIn::Brackets => "brackets",
            BuiltIn::TwoInteger => "two_integer",
            BuiltIn::MaxOfK => "max_of_k",
            BuiltIn::ModularAddition => "modular_addition",
        }
    }
}

impl fmt::Display for BuiltIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BuiltIn {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let found = BuiltIn::ALL.into_iter().find(|t| t.name() == s);
        found.ok_or_else(|| Error::unknown("task", s, BuiltIn::ALL.map(BuiltIn::name)))
    }
}
