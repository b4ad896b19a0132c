//! The roles of the published circuit, and which heads have them by the numbers found here.

use super::circuit::Exact;
use super::{Looks, Patching, Place, Seen};
use crate::edges::EdgeGraph;
use crate::names::Head;
use serde::Serialize;

/// What a head does in GPT-2's published circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks from the end at the indirect object and writes its name.
    NameMover,
    /// Looks there too, and writes against it.
    NegativeNameMover,
    /// Looks from the end at the subject's second mention, and turns the name movers' queries away from the subject.
    SInhibition,
    /// Looks from the subject's second mention at the first.
    DuplicateToken,
    /// Looks from the subject's second mention at what came after the first.
    Induction,
    /// Looks from what comes after the subject's first mention at that.
    PreviousToken,
}

impl Role {
    /// All of them, from the answer back.
    pub const ALL: [Role; 6] = [
        Role::NameMover,
        Role::NegativeNameMover,
        Role::SInhibition,
        Role::DuplicateToken,
        Role::Induction,
        Role::PreviousToken,
    ];

    /// How much a head looks as those do which find out that a name is repeated, and from which place.
    fn looks(self, looks: &Looks) -> Option<(f64, Place)> {
        match self {
            Role::DuplicateToken => Some((looks.s2_s1, Place::S2)),
            Role::Induction => Some((looks.s2_after, Place::S2)),
            Role::PreviousToken => Some((looks.after_s1, Place::AfterS1)),
            Role::NameMover | Role::NegativeNameMover | Role::SInhibition => None,
        }
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Role::NameMover => "name mover",
            Role::NegativeNameMover => "negative name mover",
            Role::SInhibition => "S-inhibition",
            Role::DuplicateToken => "duplicate token",
            Role::Induction => "induction",
            Role::PreviousToken => "previous token",
        }
    }
}

/// The least attention by which a head looks at a place.
pub const LOOKS: f64 = 0.2;

/// The least share of the logit difference that a head has a part in.
pub const MATTERS: f64 = 0.01;

/// The least share of the prompts on which a head copies, or suppresses, the name that it sees.
pub const COPIES: f64 = 0.5;

/// How many name movers' queries are looked at edge by edge: those that add most.
pub const MOVERS: usize = 3;

/// The heads of each role.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Roles {
    heads: Vec<(Role, Head)>,
}

impl Roles {
    /// The heads of a role, those with most of what makes it first.
    pub fn of(&self, role: Role) -> Vec<Head> {
        let own = self.heads.iter().filter(|(own, _)| *own == role);
        own.map(|(_, head)| *head).collect()
    }

    /// A head's roles.
    pub fn of_head(&self, head: Head) -> Vec<Role> {
        let own = self.heads.iter().filter(|(_, own)| *own == head);
        own.map(|(role, _)| *role).collect()
    }

    /// Every head with a role, once.
    pub fn all(&self) -> Vec<Head> {
        let mut all: Vec<Head> = self.heads.iter().map(|(_, head)| *head).collect();
        all.sort_unstable_by_key(|h| (h.layer, h.head));
        all.dedup();
        all
    }

    fn add(&mut self, role: Role, heads: &[Head], measure: impl Fn(usize) -> Option<f64>) {
        let found = heads.iter().enumerate();
        let mut found: Vec<(Head, f64)> =
            found.filter_map(|(i, &h)| Some((h, measure(i)?))).collect();
        found.sort_by(|a, b| b.1.total_cmp(&a.1));
        self.heads
            .extend(found.into_iter().map(|(head, _)| (role, head)));
    }
}

/// What roles are read from, head by head.
pub(super) struct Numbers<'a> {
    pub heads: &'a [Head],
    pub seen: &'a Seen,
    pub patching: &'a Patching,
}

impl Numbers<'_> {
    fn share(&self, x: f64) -> f64 {
        x / self.seen.behaviour.logit_diff.abs()
    }

    /// Those that write to the logits, as far as that needs no edges.
    pub fn writers(&self) -> Roles {
        let mut roles = Roles::default();
        let direct = |i: usize| self.share(self.seen.direct.heads[i]);
        let (looks, copies) = (&self.seen.looks, &self.seen.copies);
        let at_io = |i: usize| looks[i].end_io >= LOOKS;
        roles.add(Role::NameMover, self.heads, |i| {
            let own = at_io(i) && copies[i].copies >= COPIES && direct(i) >= MATTERS;
            own.then(|| direct(i))
        });
        roles.add(Role::NegativeNameMover, self.heads, |i| {
            let own = at_io(i) && copies[i].suppresses >= COPIES && direct(i) <= -MATTERS;
            own.then(|| -direct(i))
        });
        roles
    }

    /// All roles, once it is known what edges into the name movers' queries do.
    pub fn all(&self, mut roles: Roles, exact: &Exact, graph: &EdgeGraph) -> Roles {
        let looks = &self.seen.looks;
        roles.add(Role::SInhibition, self.heads, |i| {
            let upon = -self.share(exact.upon_queries(graph, self.heads[i]));
            (looks[i].end_s2 >= LOOKS && upon >= MATTERS).then_some(upon)
        });
        for role in [Role::DuplicateToken, Role::Induction, Role::PreviousToken] {
            roles.add(role, self.heads, |i| {
                let (look, place) = role.looks(&looks[i])?;
                let there = self.patching.exactly[i][place as usize]?;
                (look >= LOOKS && self.share(there).abs() >= MATTERS).then_some(look)
            });
        }
        roles
    }
}

/// The heads that look as those do which find out that a name is repeated, with the place from which they look.
pub(super) fn candidates(heads: &[Head], seen: &Seen) -> Vec<(Head, Place)> {
    let mut all = Vec::new();
    for (&head, looks) in heads.iter().zip(&seen.looks) {
        let from = Role::ALL.into_iter().filter_map(|role| role.looks(looks));
        let from = from.filter(|(look, _)| *look >= LOOKS);
        for (_, place) in from {
            if !all.contains(&(head, place)) {
                all.push((head, place));
            }
        }
    }
    all
}
