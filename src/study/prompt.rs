//! What a language model makes of one sequence, with every number that its page shows.

use super::page::line;
use super::prose::quoted;
use super::words::{number, percent};
use super::{
    Bar, BarChart, Chart, ChartAxis, Draw, HeadsView, ModelView, Page, Picture, Section, Series,
    Table, WordGrid, XyPlot,
};
use crate::decompose::{
    By, Component, Logit, LogitLens, direct_logits_along, direct_logits_hooks, lens_everywhere,
    logit_lens,
};
use crate::diagram::Mask;
use crate::error::{Error, Result};
use crate::model::{Config, Model, Run, RunOutput, Standing, Tokens};
use crate::names::{Head, Hook};
use crate::tensor::Scalar;
use std::collections::BTreeMap;

/// What is asked of a sequence.
pub struct Question<'a> {
    /// The model, as it is called where it is from.
    pub model: &'a str,
    /// The page's heading; the words of the sequence where none is given.
    pub title: Option<&'a str>,
    /// The position after which it is asked what comes; the last one where none is given.
    pub position: Option<usize>,
    /// The token whose logit is taken apart; the likeliest one where none is given.
    pub answer: Option<usize>,
    /// A token's word, with the blank before it.
    pub word: &'a (dyn Fn(usize) -> String + Sync),
    /// What the logits are of, where they are not of tokens: a word for each. Else empty.
    pub classes: &'a [String],
    /// Called with the number of positions read.
    pub progress: &'a (dyn Fn(usize) + Sync),
}

/// How many bytes of attention weights a page takes: browsers open what is a few times as large at once.
const MOST_WEIGHTS: usize = 16 << 20;
/// How many of the likeliest tokens are listed.
const LIKELIEST: usize = 10;
/// And how many in each cell of the lens.
const IN_A_CELL: usize = 3;
/// How many heads are listed.
const HEADS: usize = 10;

impl Page {
    /// Runs a model on one sequence and looks at it from all sides: what comes next, where each head attends, what each
    /// layer would say, and what writes the answer.
    ///
    /// ```
    /// use pathsum::study::{Page, Question};
    /// use pathsum::{Tokens, fixture};
    /// let model = fixture::induction::<f64>();
    /// let question = Question {
    ///     model: "fixture:induction",
    ///     title: None,
    ///     position: None,
    ///     answer: None,
    ///     word: &|token| format!(" {token}"),
    ///     classes: &[],
    ///     progress: &|_| {},
    /// };
    /// let story = Page::of_prompt(&model, &Tokens::from_rows(&[[3, 1, 4, 3]]), &question)?;
    /// assert!(story.summary[0].contains("` 1`")); // what came after the first 3
    /// # Ok::<(), pathsum::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Model::run`]; when there is not one sequence; when the model has no layers, the sequence no such position (pads
    /// do not count), or the model no such logit; and when the sequence is too long for a page.
    ///
    /// # Cost
    /// A run, and the unembedding of every layer's stream at every position.
    pub fn of_prompt<T: Scalar>(
        model: &Model<T>,
        tokens: &Tokens,
        question: &Question<'_>,
    ) -> Result<Page> {
        let c = model.config();
        let tokens = &without_pads(tokens)?;
        let asked = Asked::of(c, tokens, question)?;
        let run = asked.hooks(c).into_iter();
        let out = model.run(tokens, run.fold(Run::new(), |run, hook| run.cache(hook)))?;
        let speaks = c.d_vocab_out > 0;
        let answer = match speaks {
            true => Some(asked.standing(&out, question)?),
            false => None,
        };
        let mut sections = Vec::new();
        if answer.is_some() {
            sections.push(asked.next(&out));
        }
        let adds = match answer {
            Some(answer) => match asked.adds(model, &out, answer.token) {
                Ok(adds) => Some(adds),
                Err(Error::NotCovered(reason)) => {
                    sections.push(Section::new("writers", WRITERS).text(format!(
                        "What each head and layer adds to the logit is not told apart here: {reason}."
                    )));
                    None
                }
                Err(e) => return Err(e),
            },
            None => None,
        };
        let at = sections.len().min(1);
        let mut attention = asked.attention(c, &out, adds.as_ref())?;
        match asked.carried(model)? {
            Ok(change) => sections.insert(at, change),
            Err(reason) => {
                attention = attention.text(format!(
                    "The model cannot be run again in this page with other tokens: {reason}."
                ))
            }
        }
        sections.insert(at, attention);
        if let (Some(adds), Some(answer)) = (&adds, answer) {
            sections.push(asked.writers(c, &out, adds, answer)?);
        }
        if let Some(answer) = answer {
            sections.push(asked.lens(model, &out, answer, question.progress)?);
        }
        let summary = match answer {
            Some(answer) => vec![asked.said(answer, question.answer.is_some())],
            None => {
                vec!["The model has no unembedding: it says nothing of what comes next.".into()]
            }
        };
        Ok(Page {
            title: match question.title {
                Some(title) => title.into(),
                None => asked.words.concat().trim().into(),
            },
            model: line(c, question.model, T::PRECISION.to_string()),
            summary,
            sections,
        })
    }
}

const WRITERS: &str = "What writes the answer";

/// A word as it can be shown in a line: what moves the line or cannot be seen is written out.
fn visible(word: &str) -> String {
    if !word.is_empty() && word.chars().all(|c| c == ' ') {
        return "␣".repeat(word.len());
    }
    let shown = |c: char| match c {
        ' ' => " ".to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c if c.is_whitespace() => c.escape_unicode().to_string(),
        c => c.to_string(),
    };
    word.chars().map(shown).collect()
}

/// A question about a sequence, understood.
struct Asked<'a> {
    words: Vec<String>,
    tokens: &'a [i64],
    position: usize,
    word: &'a (dyn Fn(usize) -> String + Sync),
    classes: &'a [String],
}

/// What each component adds to the answer's logit.
type Adds = Vec<(Component, f64)>;

impl<'a> Asked<'a> {
    fn of(c: &Config, tokens: &'a Tokens, question: &Question<'a>) -> Result<Self> {
        let pos = tokens.pos();
        if c.n_layers == 0 {
            return Err(Error::NotInModel("layers".into()));
        }
        let weights = HeadsView::weigh(c.n_layers, c.n_heads, pos, c.mask == Mask::Causal);
        if weights > MOST_WEIGHTS {
            let fits = |n: &usize| {
                HeadsView::weigh(c.n_layers, c.n_heads, *n, c.mask == Mask::Causal) <= MOST_WEIGHTS
            };
            let most = (1..pos).take_while(fits).last().unwrap_or(0);
            return Err(Error::TooMany {
                found: pos as u128,
                most: most as u128,
                message: format!(
                    "{pos} tokens are too many for a page with the attention of {} heads, which has room for {most}",
                    c.n_layers * c.n_heads
                ),
            });
        }
        let position = question.position.unwrap_or(pos.saturating_sub(1));
        if position >= pos {
            return Err(Error::out_of_range(
                "position",
                position,
                "",
                "the sequence's",
                0..pos,
            ));
        }
        let word = |&token: &i64| visible(&(question.word)(token as usize));
        Ok(Asked {
            words: tokens.sequence(0).iter().map(word).collect(),
            tokens: tokens.sequence(0),
            position,
            word: question.word,
            classes: question.classes,
        })
    }

    /// What the run must keep.
    fn hooks(&self, c: &Config) -> Vec<Hook> {
        let mut hooks: Vec<Hook> = (0..c.n_layers).map(Hook::Pattern).collect();
        if c.d_vocab_out > 0 {
            hooks.extend(LogitLens::<f64>::hooks(c));
            hooks.extend(direct_logits_hooks(c, By::Head));
        }
        hooks
    }

    /// What a logit is of.
    fn word(&self, logit: usize) -> String {
        match self.classes.get(logit) {
            Some(class) => visible(class),
            None => visible(&(self.word)(logit)),
        }
    }

    /// How the answer stands.
    fn standing<T: Scalar>(&self, out: &RunOutput<T>, question: &Question<'_>) -> Result<Standing> {
        let row = out.logits.slice(&[0, self.position]);
        match question.answer {
            Some(token) if token >= row.len() => Err(Error::out_of_range(
                "token",
                token,
                "",
                "this model's logits",
                0..row.len(),
            )),
            Some(token) => Ok(Standing::of(row, token)),
            None => Ok(Standing::likeliest(row, 1)[0]),
        }
    }

    /// After which words it is asked.
    fn after(&self) -> String {
        let last = self.position + 1 == self.words.len();
        let place = if last { "" } else { " in the text" };
        format!(
            "after {} at position {}{place}",
            quoted(&self.words[self.position]),
            self.position
        )
    }

    fn said(&self, answer: Standing, given: bool) -> String {
        let word = quoted(&self.word(answer.token));
        let share = percent(answer.probability);
        let after = self.after();
        match given {
            false => format!(
                "The likeliest {} {after} is {word}, with a probability of {share}.",
                if self.classes.is_empty() {
                    "next token"
                } else {
                    "answer"
                }
            ),
            true => format!(
                "The answer that is asked for {after} is {word}: probability {share}, rank {} of all tokens.",
                answer.rank
            ),
        }
    }

    fn next<T: Scalar>(&self, out: &RunOutput<T>) -> Section {
        let row = out.logits.slice(&[0, self.position]);
        let (title, what) = match self.classes.is_empty() {
            true => ("What comes next", "token"),
            false => ("What the model answers", "answer"),
        };
        let mut table = Table::new("", [what, "number", "logit", "probability"]);
        for next in Standing::likeliest(row, LIKELIEST) {
            table.row([
                quoted(&self.word(next.token)).into(),
                next.token.into(),
                next.logit.into(),
                next.probability.into(),
            ]);
        }
        let mut section = Section::new("next", title);
        section.tables.push(table);
        section
    }

    /// What each component of the stream adds to the answer's logit.
    fn adds<T: Scalar>(&self, model: &Model<T>, out: &RunOutput<T>, answer: usize) -> Result<Adds> {
        let logit = [Logit::Of(answer)];
        let stack = direct_logits_along(model, out, (0, self.position), By::Head, &logit)?;
        let values = stack.values.data().iter().map(|x| x.to_f64());
        Ok(stack.labels.iter().copied().zip(values).collect())
    }

    fn attention<T: Scalar>(
        &self,
        c: &Config,
        out: &RunOutput<T>,
        adds: Option<&Adds>,
    ) -> Result<Section> {
        let patterns = (0..c.n_layers).map(|l| out.cache.require(Hook::Pattern(l)));
        let patterns: Vec<_> = patterns.collect::<Result<_>>()?;
        let causal = c.mask == Mask::Causal;
        let mut view = HeadsView::new(self.words.clone(), &patterns, causal);
        view.query = self.position;
        let mut section = Section::new("attention", "Where each head looks").text(
            "A row of the pattern is a token that looks, a column one that is looked at; each row adds up to 1. \
             Weights are kept in eight bits, and are right to within 0.002.",
        );
        if let Some(adds) = adds {
            let heads = heads(adds);
            view.score = "adds to the answer's logit".into();
            view.scores = heads.iter().map(|(_, x)| (*x).into()).collect();
            let most = heads.iter().max_by(|a, b| a.1.total_cmp(&b.1));
            view.first = most.map_or(view.first, |(h, _)| [h.layer, h.head]);
            section = section.text(
                "Heads are coloured by what they add to the answer's logit directly, at the position where it is read: \
                 blue raises it, red lowers it. The one that raises it most is shown first.",
            );
        }
        let picture = Picture::new("attention", "Attention of one head", view);
        section.pictures.push(picture);
        Ok(section)
    }

    /// The model itself, where a page can carry it.
    fn carried<T: Scalar>(&self, model: &Model<T>) -> Result<Result<Section, String>> {
        let c = model.config();
        let words = (0..c.d_vocab).map(|token| visible(&(self.word)(token)));
        let answers = (0..c.d_vocab_out).map(|logit| self.word(logit));
        let names = (words, answers);
        let view = ModelView::of(model, self.tokens, self.position, names)?;
        let section = |view| {
            let mut section = Section::new("change", "Change a token, ablate a head").text(
                "The page carries the model, and runs it again in f64 as soon as something is chosen: another token, or a head \
                 that is to write nothing (its `z` is zero). Every head's pattern is of the tokens as they stand here, the framed \
                 row is the position that is read. The page's address then says what was chosen, and opens it again.",
            );
            let picture = Picture::new("change", "The model, run in this page", view);
            section.pictures.push(picture);
            section
        };
        Ok(view.map(section))
    }

    fn writers<T: Scalar>(
        &self,
        c: &Config,
        out: &RunOutput<T>,
        adds: &Adds,
        answer: Standing,
    ) -> Result<Section> {
        let of = |wanted: &dyn Fn(Component) -> bool| -> f64 {
            let those = adds.iter().filter(|(component, _)| wanted(*component));
            those.map(|(_, x)| x).sum()
        };
        let attention = |l: usize| {
            of(&|component| match component {
                Component::Head(head) => head.layer == l,
                Component::AttnBias(own) => own == l,
                _ => false,
            })
        };
        let mlp = |l: usize| of(&|component| component == Component::MlpOut(l));
        let layers = || 0..c.n_layers;
        let mut bars = vec![Bar::new(
            "attention",
            &layers().map(attention).collect::<Vec<_>>(),
        )];
        if c.mlp.is_some() {
            bars.push(Bar::new("MLP", &layers().map(mlp).collect::<Vec<_>>()));
        }
        let chart = Chart::Bars(vec![BarChart {
            title: String::new(),
            x: ChartAxis::new("layer", layers()),
            y: "adds to the logit".into(),
            bars,
        }]);
        let rest: Vec<String> = (adds.iter())
            .filter(|(component, _)| !in_a_layer(*component))
            .map(|(component, x)| format!("{component} {}", number(*x)))
            .collect();
        let word = quoted(&self.word(answer.token));
        let mut section = Section::new("writers", WRITERS).text(format!(
            "The logit of {word}, {}, is a sum over all that was written to the stream at this position, through the last \
             norm at the scale of this run. Beside the layers stand {}. What a layer lets later ones do is not in it.",
            number(answer.logit),
            rest.join(", ")
        ));
        let mut ranked = heads(adds);
        ranked.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
        ranked.truncate(HEADS);
        let title = "The heads that add most, either way";
        let mut table = Table::new(title, ["head", "adds", "looks most at", "weight"]);
        for (head, x) in ranked {
            let pattern = out.cache.require(Hook::Pattern(head.layer))?;
            let row = pattern.slice(&[0, head.head, self.position]);
            let most = (0..row.len()).max_by(|&a, &b| row[a].to_f64().total_cmp(&row[b].to_f64()));
            let most = most.expect("a sequence has a token");
            table.row([
                head.to_string().into(),
                x.into(),
                format!("{} at {most}", quoted(&self.words[most])).into(),
                row[most].to_f64().into(),
            ]);
        }
        section.tables.push(table);
        let title = format!("What each layer adds to the logit of {word}");
        section.pictures.push(Picture::new("layers", &title, chart));
        Ok(section)
    }

    fn lens<T: Scalar>(
        &self,
        model: &Model<T>,
        out: &RunOutput<T>,
        answer: Standing,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<Section> {
        let own = logit_lens(model, out, (0, self.position))?;
        let all = lens_everywhere(model, out, 0, IN_A_CELL, progress)?;
        let places: Vec<String> = (own.hooks.iter()).map(|hook| place(*hook)).collect();
        let columns = self.words.iter().enumerate();
        let columns = columns.map(|(p, word)| format!("{p}: {word}"));
        let mut grid = WordGrid::new(
            ChartAxis::new("stream", &places),
            ChartAxis::new("after", columns.collect::<Vec<_>>()),
        );
        let mut numbers: BTreeMap<usize, usize> = BTreeMap::new();
        for layer in 0..places.len() {
            for (p, said) in all.iter().enumerate() {
                let cell = said[layer].iter().map(|s| {
                    let next = numbers.len();
                    let word = *numbers.entry(s.token).or_insert(next);
                    if word == grid.words.len() {
                        grid.words.push(self.word(s.token));
                    }
                    (word, s.probability.into())
                });
                grid.cells.push(cell.collect());
                let came = match self.tokens.get(p + 1) {
                    _ if p == self.position => Some(answer.token),
                    next => next.map(|&t| t as usize),
                };
                if came == said[layer].first().map(|s| s.token) {
                    grid.marked.push([layer, p]);
                }
            }
        }
        grid.column = self.position;
        let shares: Vec<f64> = (0..places.len())
            .map(|i| Standing::of(own.logits.slice(&[i]), answer.token).probability)
            .collect();
        let at: Vec<f64> = (0..places.len()).map(|i| i as f64).collect();
        let word = quoted(&self.word(answer.token));
        let plot = XyPlot {
            title: String::new(),
            x: "layers passed".into(),
            y: "probability".into(),
            series: vec![Series::new("probability", Draw::Line, &at, &shares).labels(&places)],
        };
        let mut section = Section::new("lens", "What each layer would say").text(
            "The logit lens: the stream before the first layer and behind each one goes through the model's own end, the \
             last norm and the unembedding, as if the model ended there. A cell is the token that would come next \
             likeliest, coloured by its probability; the pointer shows the likeliest three. Framed are those that did come \
             next in the text, or are the answer.",
        );
        let title = format!("The probability of {word}, {}", self.after());
        let chart = Picture::new("answer", &title, Chart::Xy(vec![plot]));
        let grid = Picture::new("lens", "The likeliest next token, layer by layer", grid);
        section.pictures.extend([chart, grid]);
        Ok(section)
    }
}

/// One sequence without its pads: what is left has the values that it had beside them.
fn without_pads(tokens: &Tokens) -> Result<Tokens> {
    if tokens.batch() != 1 {
        let message = format!("{} sequences, where a page is of one", tokens.batch());
        return Err(Error::Mismatch(message));
    }
    let seen: Vec<usize> = (0..tokens.pos())
        .filter(|&p| tokens.is_attended(0, p))
        .collect();
    let of = |values: &[i64]| -> Vec<i64> { seen.iter().map(|&p| values[p]).collect() };
    let alone = Tokens::new(1, seen.len(), of(tokens.sequence(0)));
    match tokens.token_types() {
        Some(types) => alone.typed(of(types)),
        None => Ok(alone),
    }
}

/// What the heads add, by layer and head.
fn heads(adds: &Adds) -> Vec<(Head, f64)> {
    let head = |&(component, x): &(Component, f64)| match component {
        Component::Head(head) => Some((head, x)),
        _ => None,
    };
    let mut heads: Vec<_> = adds.iter().filter_map(head).collect();
    heads.sort_by_key(|(head, _)| *head);
    heads
}

/// Whether a component is one of a layer's.
fn in_a_layer(component: Component) -> bool {
    match component {
        Component::AttnOut(_)
        | Component::Head(_)
        | Component::AttnBias(_)
        | Component::MlpOut(_)
        | Component::Neuron { .. }
        | Component::MlpBias(_) => true,
        Component::Embed
        | Component::PosEmbed
        | Component::TokenTypeEmbed
        | Component::NormBias(_)
        | Component::UnembedBias => false,
    }
}

/// A place in the stream.
fn place(hook: Hook) -> String {
    match (hook, hook.layer()) {
        (Hook::ResidPre(_), _) => "embedding".into(),
        (_, Some(layer)) => format!("layer {layer}"),
        _ => hook.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn every_word_can_be_seen() {
        for (word, seen) in [
            (" Mary", " Mary"),
            ("\n\n", "\\n\\n"),
            ("  ", "␣␣"),
            ("\u{a0}", "\\u{a0}"),
            ("é", "é"),
            ("", ""),
        ] {
            assert_eq!(visible(word), seen);
        }
    }
}
