//! The values that a run kept.

use crate::error::{Error, Result};
use crate::names::Hook;
use crate::tensor::{Scalar, Tensor};
use std::sync::Arc;

/// Hooks' values by name, in the order of the forward pass.
///
/// They are the user's own: nothing changes them later. What is the same value under two names is there once, until one
/// of them is changed; so it is with a clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Cache<T: Scalar> {
    values: Vec<(Hook, Arc<Tensor<T>>)>,
}

impl<T: Scalar> Cache<T> {
    /// A cache of these values.
    pub fn new(values: Vec<(Hook, Tensor<T>)>) -> Self {
        let own = values.into_iter().map(|(hook, t)| (hook, Arc::new(t)));
        Cache {
            values: own.collect(),
        }
    }

    /// A cache of these hooks, from the values of the hooks that stand for them.
    ///
    /// # Panics
    /// When there is no such value.
    #[track_caller]
    pub(crate) fn of(
        hooks: Vec<Hook>,
        stands_for: impl Fn(Hook) -> Hook,
        values: Vec<(Hook, Tensor<T>)>,
    ) -> Self {
        let there = Cache::new(values).values;
        let value = |hook: Hook| {
            let found = there.iter().find(|(h, _)| *h == stands_for(hook));
            (hook, Arc::clone(&found.expect("its value is there").1))
        };
        Cache {
            values: hooks.into_iter().map(value).collect(),
        }
    }

    /// A hook's value, if it was kept.
    pub fn get(&self, hook: Hook) -> Option<&Tensor<T>> {
        let found = self.values.iter().find(|(h, _)| *h == hook);
        found.map(|(_, t)| &**t)
    }

    /// A hook's value, to be changed, if it was kept.
    pub fn get_mut(&mut self, hook: Hook) -> Option<&mut Tensor<T>> {
        let found = self.values.iter_mut().find(|(h, _)| *h == hook);
        found.map(|(_, t)| Arc::make_mut(t))
    }

    /// A hook's value.
    ///
    /// # Errors
    /// When the run did not keep it.
    pub fn require(&self, hook: Hook) -> Result<&Tensor<T>> {
        self.get(hook).ok_or(Error::NotCached(hook))
    }

    /// A value by TransformerLens's name.
    ///
    /// # Errors
    /// When there is no such hook, or the run did not keep it.
    pub fn by_name(&self, name: &str) -> Result<&Tensor<T>> {
        self.require(name.parse()?)
    }

    /// Every value kept, in the order of the forward pass.
    pub fn iter(&self) -> impl Iterator<Item = (Hook, &Tensor<T>)> {
        self.values.iter().map(|(h, t)| (*h, &**t))
    }

    /// The number of values kept.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing was kept.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

impl<T: Scalar> std::ops::Index<Hook> for Cache<T> {
    type Output = Tensor<T>;

    /// # Panics
    /// When the run did not keep it.
    #[track_caller]
    fn index(&self, hook: Hook) -> &Tensor<T> {
        self.get(hook)
            .unwrap_or_else(|| panic!("the run kept no `{hook}`"))
    }
}
