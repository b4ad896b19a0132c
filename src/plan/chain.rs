//! The order in which a chain of matrices is multiplied.

use super::cost::Cost;

/// An order: which part is multiplied with which. The leaves are the chain's parts, in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Order {
    Part(usize),
    Product(Box<Order>, Box<Order>),
}

/// The cheapest order of parts `first..=last` for every such stretch.
///
/// *Source*: the matrix chain's dynamic programme, Cormen et al., "Introduction to Algorithms", 14.2.
pub(crate) struct Best {
    n: usize,
    cost: Vec<Cost>,
    split: Vec<usize>,
}

impl Best {
    /// `times(i, j, s)` is the cost of multiplying `i..=s` with `s + 1..=j`, once both are there.
    pub fn new(n: usize, times: impl Fn(usize, usize, usize) -> Cost) -> Self {
        let mut best = Best {
            n,
            cost: vec![Cost::default(); n * n],
            split: vec![0; n * n],
        };
        for length in 2..=n {
            for i in 0..=n - length {
                let j = i + length - 1;
                let cost =
                    |s: usize| best.cost[i * n + s] + best.cost[(s + 1) * n + j] + times(i, j, s);
                let (split, cost) = (i..j)
                    .map(|s| (s, cost(s)))
                    .min_by_key(|(_, c)| c.work())
                    .expect("two parts at least");
                best.cost[i * n + j] = cost;
                best.split[i * n + j] = split;
            }
        }
        best
    }

    /// The cost of the product of parts `i..=j`.
    pub fn cost(&self, i: usize, j: usize) -> Cost {
        self.cost[i * self.n + j]
    }

    /// The order for parts `i..=j`.
    pub fn order(&self, i: usize, j: usize) -> Order {
        if i == j {
            return Order::Part(i);
        }
        let s = self.split[i * self.n + j];
        Order::Product(Box::new(self.order(i, s)), Box::new(self.order(s + 1, j)))
    }
}

impl Order {
    /// From left to right.
    pub fn naive(first: usize, last: usize) -> Order {
        (first + 1..=last).fold(Order::Part(first), |left, part| {
            Order::Product(Box::new(left), Box::new(Order::Part(part)))
        })
    }

    /// Every order of the parts `first..=last`: a Catalan number of them.
    pub fn all(first: usize, last: usize) -> Vec<Order> {
        if first == last {
            return vec![Order::Part(first)];
        }
        let mut all = Vec::new();
        for s in first..last {
            for left in Order::all(first, s) {
                for right in Order::all(s + 1, last) {
                    all.push(Order::Product(Box::new(left.clone()), Box::new(right)));
                }
            }
        }
        all
    }

    /// The first and the last part.
    pub fn ends(&self) -> (usize, usize) {
        match self {
            Order::Part(i) => (*i, *i),
            Order::Product(left, right) => (left.ends().0, right.ends().1),
        }
    }
}
