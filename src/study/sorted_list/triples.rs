//! Lists with three values close together.

use crate::decompose::{Logit, source_attribution};
use crate::error::Result;
use crate::model::{Model, Run, Tokens};
use crate::names::Head;
use serde::Serialize;

/// A number, and the two after it, in lists where the first head might take the second for the third.
///
/// The write-up's four: the list, and which of its values are looked at.
const CLOSE_TRIPLES: [([i64; 10], [i64; 3]); 4] = [
    ([0, 5, 14, 15, 17, 25, 30, 35, 40, 45], [14, 15, 17]),
    ([0, 5, 10, 15, 20, 25, 26, 27, 40, 45], [25, 26, 27]),
    ([0, 5, 10, 15, 20, 25, 30, 31, 32, 45], [30, 31, 32]),
    ([0, 5, 10, 15, 20, 25, 30, 31, 34, 45], [30, 31, 34]),
];

/// Three values close together in a list.
#[derive(Clone, Debug, Serialize)]
pub struct CloseTriple {
    /// The list, in order.
    pub list: Vec<i64>,
    /// The head that copies the second and third of them.
    pub head: usize,
    /// The three values.
    pub triple: [i64; 3],
    /// `[[y → y, z → y], [y → z, z → z]]`: what the source adds to the logit.
    pub attribution: [[f64; 2]; 2],
}

pub(super) fn close_triples(
    model: &Model<f64>,
    values: usize,
    length: usize,
    owners: &[usize],
) -> Result<Vec<CloseTriple>> {
    let fits = |(list, _): &&([i64; 10], [i64; 3])| {
        length == list.len() && list.iter().all(|&v| v < values as i64)
    };
    let of = |(list, triple): &([i64; 10], [i64; 3])| {
        let [x, y, z] = *triple;
        let head = Head {
            layer: 0,
            head: owners[y as usize],
        };
        let sequence = [&list[..], &[values as i64], list].concat();
        let out = model.run(&Tokens::from_rows(&[sequence]), Run::new().cache("*"))?;
        let place = |value: i64| {
            list.iter()
                .position(|&v| v == value)
                .expect("one of the list's")
        };
        let query = length + 1 + place(x);
        let added = |source: i64, logit: i64| -> Result<f64> {
            let by_source = source_attribution(model, &out.cache, 0, Logit::Of(logit as usize))?;
            Ok(by_source[[0, head.head, query, place(source)]])
        };
        Ok(CloseTriple {
            list: list.to_vec(),
            head: head.head,
            triple: *triple,
            attribution: [[added(y, y)?, added(z, y)?], [added(y, z)?, added(z, z)?]],
        })
    };
    CLOSE_TRIPLES.iter().filter(fits).map(of).collect()
}
