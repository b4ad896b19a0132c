//! The built-in tasks: what they generate is distributed as the published datasets are, their solutions agree
//! with the published labels, and a task of one's own is used like them.

use crate::common::reference;
use pathsum::metric::Answers;
use pathsum::task::{
    Brackets, BuiltIn, LabelTable, MaxOfK, ModularAddition, Operation, Palindromes, SortedLists,
    Task, TwoIntegers, Vocabulary,
};
use pathsum::{Config, Result, TensorFile, Tokens};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

fn dataset(file: PathBuf, key: &str) -> (Tokens, Vec<i64>) {
    let file = TensorFile::open(file).unwrap();
    let tokens = Tokens::from_file(&file).unwrap();
    let (shape, labels) = file.integer(key).unwrap();
    assert_eq!(shape, [tokens.batch()]);
    (tokens, labels)
}

fn rows(tokens: &Tokens) -> impl Iterator<Item = &[i64]> {
    (0..tokens.batch()).map(|i| tokens.sequence(i))
}

// ---- Chi-squared

/// What counts of `k + 1` bins may differ by: a chi-squared variable of `k` degrees of freedom exceeds
/// `k + 2 √(k x) + 2 x` with a probability of at most `e^-x` (Laurent and Massart, 2000, lemma 1). Here one in
/// ten thousand.
fn bound(degrees: usize) -> f64 {
    let (k, x) = (degrees as f64, 1e4f64.ln());
    k + 2.0 * (k * x).sqrt() + 2.0 * x
}

/// Bins that expect fewer than this are counted with their neighbour, or the statistic is no chi-squared.
const FEWEST: f64 = 5.0;

/// Neighbouring bins put together until each expects enough.
fn merged(bins: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut all: Vec<(f64, f64)> = Vec::new();
    let mut open = (0.0, 0.0);
    for (a, b) in bins {
        open = (open.0 + a, open.1 + b);
        if open.1 >= FEWEST {
            all.push(std::mem::take(&mut open));
        }
    }
    let last = all.last_mut().expect("some bin expects enough");
    *last = (last.0 + open.0, last.1 + open.1);
    all
}

/// How far counts are from probabilities, as a share of what they may be.
fn against(probabilities: &[f64], counts: &[usize]) -> f64 {
    assert_eq!(probabilities.len(), counts.len());
    let n = counts.iter().sum::<usize>() as f64;
    let total: f64 = probabilities.iter().sum();
    let expected = probabilities.iter().map(|p| n * p / total);
    let bins = merged(counts.iter().map(|&c| c as f64).zip(expected));
    let statistic: f64 = bins.iter().map(|(o, e)| (o - e) * (o - e) / e).sum();
    statistic / bound(bins.len() - 1)
}

/// How far two samples are from one distribution, as a share of what they may be. The smaller one is `few`.
fn between(few: &[usize], many: &[usize]) -> f64 {
    assert_eq!(few.len(), many.len());
    let sum = |counts: &[usize]| counts.iter().sum::<usize>() as f64;
    let (n, m) = (sum(few), sum(many));
    assert!(n <= m && n > 0.0);
    // Scaled so that the second number is what the smaller sample would expect of both together.
    let both = |(&a, &b): (&usize, &usize)| (a as f64, (a + b) as f64 * n / (n + m));
    let bins = merged(few.iter().zip(many).map(both));
    let statistic: f64 = (bins.iter())
        .map(|(o, e)| (o - e) * (o - e) / e * (n + m) / m)
        .sum();
    statistic / bound(bins.len() - 1)
}

fn count(bins: usize, of: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let mut counts = vec![0; bins];
    of.into_iter().for_each(|i| counts[i] += 1);
    counts
}

/// Named counts of a sample.
type Profile = BTreeMap<&'static str, Vec<usize>>;

/// The worst of a sample's counts against those of a larger sample.
fn worst(few: &Profile, many: &Profile) -> (f64, &'static str) {
    assert!(few.keys().eq(many.keys()));
    let each = few.iter().map(|(&what, f)| (between(f, &many[what]), what));
    each.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

// ---- Palindromes

fn palindrome_profile(tokens: &Tokens) -> Profile {
    let task = Palindromes::default();
    let broken: Vec<Vec<usize>> = rows(tokens).map(|s| task.broken_pairs(s)).collect();
    let of_broken = || broken.iter().filter(|b| !b.is_empty());
    let values = |s: &[i64]| s[1..11].iter().map(|&v| v as usize).collect::<Vec<_>>();
    BTreeMap::from([
        (
            "class",
            count(2, broken.iter().map(|b| usize::from(b.is_empty()))),
        ),
        ("pairs changed", count(11, of_broken().map(Vec::len))),
        ("which", count(11, of_broken().flatten().copied())),
        ("values", count(31, rows(tokens).flat_map(values))),
    ])
}

/// Palindromes of which the others have each pair broken with this probability, or so many at once.
fn other_palindromes(share: f64, break_pairs: impl Fn(&mut ChaCha8Rng) -> Vec<usize>) -> Tokens {
    let task = Palindromes::default();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let ids = (0..20_000).flat_map(|i| {
        let mut values: Vec<i64> = (0..10).map(|_| rng.random_range(0..31)).collect();
        values.extend(values.clone().iter().rev());
        if f64::from(i) >= share * 20_000.0 {
            for p in break_pairs(&mut rng) {
                values[p] = rng.random_range(0..31);
            }
        }
        let ends = (task.start(), task.end());
        [vec![ends.0], values, vec![ends.1]].concat()
    });
    Tokens::new(20_000, 22, ids.collect())
}

fn with_coin(p: f64) -> impl Fn(&mut ChaCha8Rng) -> Vec<usize> {
    move |rng| (0..10).filter(|_| rng.random_bool(p)).collect()
}

#[test]
fn palindromes_are_distributed_as_published() {
    let Some(root) = reference::root() else {
        return;
    };
    let (published, _) = dataset(root.join("palindrome/dataset.safetensors"), "is_palindrome");
    let published = palindrome_profile(&published);
    let own = palindrome_profile(&Palindromes::default().tokens(20_000, 0));
    let (ratio, what) = worst(&published, &own);
    println!("palindrome: {ratio:.2} of the bound ({what})");
    assert!(ratio <= 1.0, "{what}: {ratio}");

    // The oracle's own way of sampling passes; slightly different ones do not.
    let same = palindrome_profile(&other_palindromes(0.5, with_coin(0.5)));
    assert!(worst(&published, &same).0 <= 1.0);
    let so_many = |rng: &mut ChaCha8Rng| (0..rng.random_range(1..11)).collect::<Vec<_>>();
    for (other, tokens) in [
        ("a coin of 0.45", other_palindromes(0.5, with_coin(0.45))),
        ("a coin of 0.55", other_palindromes(0.5, with_coin(0.55))),
        ("a uniform number of pairs", other_palindromes(0.5, so_many)),
        (
            "two in five palindromes",
            other_palindromes(0.4, with_coin(0.5)),
        ),
    ] {
        let (ratio, what) = worst(&published, &palindrome_profile(&tokens));
        println!("{other}: {ratio:.2} of the bound ({what})");
        assert!(ratio > 1.0, "{other} would pass: {ratio}");
    }
}

#[test]
fn palindromes_are_distributed_as_documented() {
    let profile = palindrome_profile(&Palindromes::default().tokens(100_000, 1));
    // A pair is broken if the coin says so and the value drawn is another.
    let p = 0.5 * 30.0 / 31.0;
    let mut binomial = vec![0.0; 11];
    let mut ways = 1.0;
    for (k, to) in binomial.iter_mut().enumerate() {
        *to = ways * f64::powi(p, k as i32) * f64::powi(1.0 - p, 10 - k as i32);
        ways = ways * (10 - k) as f64 / (k + 1) as f64;
    }
    // Those that no pair breaks are palindromes.
    let chance = std::mem::take(&mut binomial[0]);
    assert!(against(&binomial, &profile["pairs changed"]) <= 1.0);
    assert!(against(&[1.0 - chance, 1.0 + chance], &profile["class"]) <= 1.0);
    assert!(against(&[1.0; 31], &profile["values"]) <= 1.0);
    assert!(against(&[0.5, 0.5], &[51_000, 49_000]) > 1.0);
}

#[test]
fn palindromes_broken_where_asked() {
    let task = Palindromes::default();
    for positions in [&[1][..], &[13], &[2, 20, 10], &[]] {
        let pairs = task.broken_at(positions, 50, 3).unwrap();
        let (whole, broken) = (&pairs.palindromes, &pairs.broken);
        assert!(whole.answers.classes().unwrap().iter().all(|&c| c == 1));
        let class = usize::from(positions.is_empty());
        assert!(
            broken
                .answers
                .classes()
                .unwrap()
                .iter()
                .all(|&c| c == class)
        );
        for (a, b) in rows(&whole.tokens).zip(rows(&broken.tokens)) {
            let differ: BTreeSet<usize> = (0..22).filter(|&p| a[p] != b[p]).collect();
            assert_eq!(differ, positions.iter().copied().collect());
        }
    }
    for (positions, said) in [
        (&[0][..], "position 0: the values' positions are 1..=20"),
        (&[21], "position 21: the values' positions are 1..=20"),
        (&[3, 18], "position 18: its pair is to be broken already"),
    ] {
        let error = task.broken_at(positions, 1, 0).unwrap_err();
        assert_eq!(error.to_string(), said);
    }
}

// ---- Brackets

fn brackets_profile(tokens: &Tokens) -> Profile {
    let task = Brackets::default();
    let (mut class, mut failure) = (Vec::new(), Vec::new());
    let (mut lengths, mut all_short) = ([Vec::new(), Vec::new()], Vec::new());
    for s in rows(tokens) {
        let failures = Brackets::failures(s);
        class.push(usize::from(failures.any()));
        if failures.any() {
            failure
                .push(usize::from(failures.total_elevation) * 2 + usize::from(failures.negative));
        }
        let brackets = task.text(s);
        lengths[usize::from(failures.any())].push(brackets.len() / 2);
        if brackets.len() == 6 {
            let bit = |n: usize, c: char| 2 * n + usize::from(c == ')');
            all_short.push(brackets.chars().fold(0, bit));
        }
    }
    let [balanced, unbalanced] = lengths;
    BTreeMap::from([
        ("class", count(2, class)),
        ("failures", count(4, failure)),
        ("lengths of balanced", count(21, balanced)),
        ("lengths of unbalanced", count(21, unbalanced)),
        ("strings of six", count(64, all_short)),
    ])
}

/// `C_n / 4ⁿ`, the share of the strings of `2n` brackets that are balanced.
fn balanced_share() -> Vec<f64> {
    let mut shares = vec![1.0];
    for n in 1..=20 {
        shares.push(shares[n - 1] * (2 * n - 1) as f64 / (2 * n + 2) as f64);
    }
    shares
}

/// Strings with these weights of the lengths, each of them tossed until it is of the class wanted.
fn other_brackets(share: f64, weights: [&dyn Fn(usize) -> f64; 2]) -> Tokens {
    let task = Brackets::default();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let ids = (0..20_000).flat_map(|_| {
        let balanced = rng.random_bool(share);
        let weight = weights[usize::from(!balanced)];
        let total: f64 = (1..=20).map(weight).sum();
        let mut at = rng.random_range(0.0..total);
        let n = (1..20).find(|&n| {
            at -= weight(n);
            at < 0.0
        });
        let brackets = tossed(2 * n.unwrap_or(20), balanced, &mut rng);
        task.sequence(&brackets).unwrap()
    });
    Tokens::new(20_000, 42, ids.collect())
}

/// A string of a class, each as likely: balanced ones as the rotation of a random string of one closing
/// bracket more that stays above its end the longest (the cycle lemma).
fn tossed(len: usize, balanced: bool, rng: &mut ChaCha8Rng) -> String {
    use rand::seq::SliceRandom;
    if balanced {
        let mut steps = [vec![1i32; len / 2], vec![-1; len / 2 + 1]].concat();
        steps.shuffle(rng);
        let mut sum = 0;
        let sums = steps.iter().enumerate().map(|(i, s)| {
            sum += s;
            (sum, i)
        });
        // The first of the lowest; the rotation starts behind it, and ends with it.
        let (_, lowest) = sums.min().unwrap();
        steps.rotate_left(lowest + 1);
        let up = |&s: &i32| if s > 0 { '(' } else { ')' };
        return steps[..len].iter().map(up).collect();
    }
    loop {
        let toss = |_| if rng.random() { '(' } else { ')' };
        let brackets: String = (0..len).map(toss).collect();
        if !balanced_by_removal(&brackets) {
            return brackets;
        }
    }
}

/// Whether nothing is left when `()` is taken away as often as it is there.
fn balanced_by_removal(brackets: &str) -> bool {
    let mut left = brackets.to_string();
    while left.contains("()") {
        left = left.replace("()", "");
    }
    left.is_empty()
}

#[test]
fn brackets_are_distributed_as_published() {
    let Some(root) = reference::root() else {
        return;
    };
    let (published, _) = dataset(root.join("brackets/dataset.safetensors"), "is_balanced");
    let published = brackets_profile(&published);
    let own = brackets_profile(&Brackets::default().tokens(20_000, 0));
    let (ratio, what) = worst(&published, &own);
    println!("brackets: {ratio:.2} of the bound ({what})");
    assert!(ratio <= 1.0, "{what}: {ratio}");

    let catalan = balanced_share();
    let (dyck, rest) = (|n: usize| catalan[n], |n: usize| 1.0 - catalan[n]);
    let share = 2284.0 / 5000.0;
    let same = brackets_profile(&other_brackets(share, [&dyck, &rest]));
    assert!(worst(&published, &same).0 <= 1.0);
    let steeper = |n: usize| catalan[n] * 0.97f64.powi(n as i32);
    let longer = |n: usize| rest(n) * n as f64;
    let grammar = |n: usize| 0.5f64.powi(n as i32);
    for (other, tokens) in [
        ("as many of each class", other_brackets(0.5, [&dyck, &rest])),
        (
            "shorter balanced ones",
            other_brackets(share, [&steeper, &rest]),
        ),
        (
            "much shorter ones",
            other_brackets(share, [&grammar, &rest]),
        ),
        (
            "longer unbalanced ones",
            other_brackets(share, [&dyck, &longer]),
        ),
    ] {
        let (ratio, what) = worst(&published, &brackets_profile(&tokens));
        println!("{other}: {ratio:.2} of the bound ({what})");
        assert!(ratio > 1.0, "{other} would pass: {ratio}");
    }
}

#[test]
fn brackets_are_distributed_as_documented() {
    let profile = brackets_profile(&Brackets::default().tokens(100_000, 1));
    let mut balanced = balanced_share();
    let mut unbalanced: Vec<f64> = balanced.iter().map(|b| 1.0 - b).collect();
    (balanced[0], unbalanced[0]) = (0.0, 0.0);
    assert!(against(&balanced, &profile["lengths of balanced"]) <= 1.0);
    assert!(against(&unbalanced, &profile["lengths of unbalanced"]) <= 1.0);
    assert!(against(&unbalanced, &profile["lengths of balanced"]) > 1.0);
    assert!(against(&[2284.0, 2716.0], &profile["class"]) <= 1.0);
    // Of six brackets, each balanced string is as likely, and each of the others.
    let of_six = |wanted: bool| {
        let text = |code: usize| (0..6).rev().map(move |i| ['(', ')'][code >> i & 1]);
        let codes =
            (0..64).filter(|&c| balanced_by_removal(&text(c).collect::<String>()) == wanted);
        codes
            .map(|c| profile["strings of six"][c])
            .collect::<Vec<_>>()
    };
    assert_eq!((of_six(true).len(), of_six(false).len()), (5, 59));
    assert!(against(&[1.0; 5], &of_six(true)) <= 1.0);
    assert!(against(&[1.0; 59], &of_six(false)) <= 1.0);
}

#[test]
fn three_solutions_of_the_brackets_agree() {
    let task = Brackets::default();
    let mut balanced = 0;
    // Every string of up to ten brackets.
    for len in 0..=10usize {
        for code in 0..1usize << len {
            let s: String = (0..len).map(|i| ['(', ')'][code >> i & 1]).collect();
            let sequence = task.sequence(&s).unwrap();
            task.check(&sequence).unwrap();
            assert_eq!(task.text(&sequence), s);
            let expected = balanced_by_removal(&s);
            balanced += usize::from(expected);
            assert_eq!(Brackets::balanced_by_loop(&s), expected, "{s}");
            assert_eq!(task.solve(&sequence), [usize::from(expected)], "{s}");
            let failures = Brackets::failures(&sequence);
            let opens = s.matches('(').count();
            assert_eq!(failures.total_elevation, 2 * opens != len, "{s}");
            // From the right: some end of the string has more opening brackets than closing ones.
            let too_open = |i: usize| 2 * s[i..].matches('(').count() > len - i;
            assert_eq!(failures.negative, (0..len).any(too_open), "{s}");
        }
    }
    // 1 + 1 + 2 + 5 + 14 + 42, Catalan's numbers.
    assert_eq!(balanced, 65);
    assert_eq!(
        Brackets::adversarial(38, 30),
        "(".repeat(15) + &")".repeat(15) + ")(" + "(((())))"
    );
    let sequence = task.sequence(&Brackets::adversarial(38, 30)).unwrap();
    let failures = Brackets::failures(&sequence);
    assert!(!failures.total_elevation && failures.negative);
    assert_eq!(
        Brackets::elevation(&task.sequence("())").unwrap())[..5],
        [1, 1, 2, 1, 0]
    );
}

// ---- Sorted lists

fn lists_profile(tokens: &Tokens) -> Profile {
    let repeats = |s: &[i64]| 10 - s[..10].iter().collect::<BTreeSet<_>>().len();
    BTreeMap::from([
        ("repeats", count(10, rows(tokens).map(repeats))),
        ("first", count(51, rows(tokens).map(|s| s[0] as usize))),
        ("last", count(51, rows(tokens).map(|s| s[9] as usize))),
        ("smallest", count(51, rows(tokens).map(|s| s[11] as usize))),
        ("median", count(51, rows(tokens).map(|s| s[15] as usize))),
    ])
}

#[test]
fn sorted_lists_are_distributed_as_published() {
    let Some(root) = reference::root() else {
        return;
    };
    let file = TensorFile::open(root.join("sorted_list/dataset.safetensors")).unwrap();
    let published = lists_profile(&Tokens::from_file(&file).unwrap());
    let own = lists_profile(&SortedLists::default().tokens(20_000, 0));
    let (ratio, what) = worst(&published, &own);
    println!("sorted_list: {ratio:.2} of the bound ({what})");
    assert!(ratio <= 1.0, "{what}: {ratio}");

    let task = SortedLists::default();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let repeated = (0..20_000).flat_map(|_| {
        let values: Vec<i64> = (0..10).map(|_| rng.random_range(0..51)).collect();
        task.sequence(&values).unwrap()
    });
    let repeated = Tokens::new(20_000, 21, repeated.collect());
    let upper = task.all_at_least(3, 20_000, 0).unwrap().tokens;
    for (other, tokens) in [("repeated values", repeated), ("values from 3 on", upper)] {
        let (ratio, what) = worst(&published, &lists_profile(&tokens));
        println!("{other}: {ratio:.2} of the bound ({what})");
        assert!(ratio > 1.0, "{other} would pass: {ratio}");
    }
}

#[test]
fn sorted_lists_are_distributed_as_documented() {
    let profile = lists_profile(&SortedLists::default().tokens(100_000, 1));
    // The smallest of 10 of 51 is at least v with probability C(51 - v, 10) / C(51, 10).
    let choose = |n: usize| (0..10).map(|i| n.saturating_sub(i) as f64).product::<f64>();
    let smallest: Vec<f64> = (0..51).map(|v| choose(51 - v) - choose(50 - v)).collect();
    assert!(against(&smallest, &profile["smallest"]) <= 1.0);
    assert!(against(&[1.0; 51], &profile["first"]) <= 1.0);
    assert!(against(&[1.0; 51], &profile["last"]) <= 1.0);
    assert_eq!(profile["repeats"][0], 100_000);
}

#[test]
fn chosen_lists() {
    let task = SortedLists::default();
    let repeated = [5, 5, 5, 0, 50, 50, 1, 2, 3, 4];
    let sequence = task.sequence(&repeated).unwrap();
    assert_eq!(sequence[10..], [51, 0, 1, 2, 3, 4, 5, 5, 5, 50, 50]);
    let large = task.all_at_least(41, 20, 0).unwrap();
    for s in rows(&large.tokens) {
        assert_eq!(s[11..], [41, 42, 43, 44, 45, 46, 47, 48, 49, 50]);
    }
    for smallest in [42, 51, 1000] {
        assert!(task.all_at_least(smallest, 1, 0).is_err());
    }
    // What stands in the sequence is what is to be predicted.
    let data = task.generate(30, 5);
    let next = Answers::next_tokens(&data.tokens, &task.read_at()).unwrap();
    assert_eq!(data.answers, next);
    for s in rows(&data.tokens) {
        let mut sorted = s[..10].to_vec();
        sorted.sort_unstable();
        assert_eq!(s[11..], sorted);
    }
}

// ---- Two integers

#[test]
fn bands_are_the_documented_function_and_not_the_challenges() {
    let task = TwoIntegers::default();
    let all = task.label(task.inputs().unwrap()).unwrap();
    assert_eq!(all.batch(), 12_769);
    let ones: usize = all.answers.classes().unwrap().iter().sum();
    assert_eq!(ones, 6_166);
    // Either filter alone leaves out much of what both say.
    let alone = |f: fn(usize, usize) -> bool| LabelTable::from_fn(113, f);
    for filter in [alone(LabelTable::near), alone(LabelTable::far)] {
        let agree = filter.labels().iter().zip(task.table().labels());
        let differ = agree.filter(|(a, b)| a != b).count();
        assert!(differ > 12_769 / 10, "{differ}");
    }
    let Some(root) = reference::root() else {
        return;
    };
    let published = LabelTable::open(root.join("two_integer/labels.safetensors")).unwrap();
    let same = published.labels().iter().zip(task.table().labels());
    let same = same.filter(|(a, b)| a == b).count();
    println!("{same} of 12769 labels are the challenge's");
    assert!(same < 12_769 * 3 / 4);
}

#[test]
fn halves_are_seeded_and_share_nothing() {
    let task = TwoIntegers::default();
    let all = task.label(task.inputs().unwrap()).unwrap();
    let (train, held_out) = all.halves(7);
    assert_eq!((train.batch(), held_out.batch()), (6_385, 6_384));
    let both: BTreeSet<&[i64]> = rows(&train.tokens).chain(rows(&held_out.tokens)).collect();
    assert_eq!(both.len(), 12_769);
    assert_eq!((train.clone(), held_out.clone()), all.halves(7));
    assert_ne!(train, all.halves(8).0);
    for half in [train, held_out] {
        assert_eq!(task.label(half.tokens.clone()).unwrap(), half);
    }
}

#[test]
fn a_table_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.safetensors");
    let write = |shape: &[usize], labels: &[i64]| {
        let saved = pathsum::tensor::Saved::integers(shape, labels);
        pathsum::write_safetensors(&path, [("labels".to_string(), saved)]).unwrap();
    };
    write(&[2, 2], &[0, 1, 1, 0]);
    let task = TwoIntegers::new(LabelTable::open(&path).unwrap());
    let all = task.label(task.inputs().unwrap()).unwrap();
    assert_eq!(all.answers.classes(), Some(&[0, 1, 1, 0][..]));
    for (shape, labels, said) in [
        (&[2, 3][..], &[0; 6][..], "shape [2, 3], expected [n, n]"),
        (&[0, 0], &[], "shape [0, 0], expected [n, n]"),
        (
            &[2, 2],
            &[0, 1, 2, 0],
            "label 2 of A = 1, B = 0: expected 0 or 1",
        ),
        (&[1, 1], &[-1], "label -1 of A = 0, B = 0: expected 0 or 1"),
    ] {
        write(shape, labels);
        let error = LabelTable::open(&path).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

// ---- The largest of some numbers

#[test]
fn half_the_lists_of_numbers_are_uniform() {
    let task = MaxOfK::default();
    let (size, n) = (40_000, 64);
    let tokens = task.tokens(size, 3);
    // A uniform list's largest is m with ((m + 1)^4 - m^4) / n^4; one of an interval from a to b, of which (1 or 2) / n^2
    // of the draws are, with the same of its own numbers.
    let largest = |m: i32, low: i32, high: i32| {
        let numbers = f64::from(high - low + 1);
        (f64::from(m - low + 1).powi(4) - f64::from(m - low).powi(4)) / numbers.powi(4)
    };
    let of = |m: i32| {
        let uniform = largest(m, 0, n - 1);
        let intervals = (0..=m).flat_map(|low| (m..n).map(move |high| (low, high)));
        let each = intervals.map(|(low, high)| {
            let ways = if low == high { 1.0 } else { 2.0 };
            ways / f64::from(n * n) * largest(m, low, high)
        });
        0.5 * uniform + 0.5 * each.sum::<f64>()
    };
    let expected: Vec<f64> = (0..n).map(of).collect();
    assert!((expected.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    let found = count(64, rows(&tokens).map(|s| task.solve(s)[0]));
    assert!(against(&expected, &found) <= 1.0);
    let uniform: Vec<f64> = (0..n).map(|m| largest(m, 0, n - 1)).collect();
    assert!(against(&uniform, &found) > 1.0);
}

#[test]
fn the_largest_is_found_along_a_place() {
    let task = MaxOfK::new(3, 8);
    for place in 0..3 {
        let (mut sequence, tokens) = (vec![2, 5, 3], [7, 0, 4]);
        let mut along = Vec::new();
        task.solve_along(&mut sequence, place, &tokens, &mut along);
        let each = tokens.map(|t| {
            sequence[place] = t;
            task.solve(&sequence)[0]
        });
        assert_eq!(along, each);
    }
    assert_eq!(task.inputs().unwrap().batch(), 512);
    assert_eq!(task.space().unwrap().size(), 512);
    assert_eq!(MaxOfK::of(10).inputs(), None);
    assert_eq!(MaxOfK::of(10).space().unwrap().size(), 1 << 60);
    assert!(
        task.parse("1 2")
            .unwrap_err()
            .to_string()
            .contains("2 numbers, expected 3")
    );
    // A model of another number of positions is asked for as many.
    let config = r#"{"n_layers": 1, "d_model": 4, "n_ctx": 7, "d_head": 2, "d_vocab": 64, "attn_only": true}"#;
    let config = Config::from_json(config).unwrap();
    assert_eq!(BuiltIn::fitting(&config), Some(BuiltIn::MaxOfK));
    assert_eq!(BuiltIn::MaxOfK.sized(&config).positions(), 7);
}

// ---- Modular addition

#[test]
fn sums_and_differences_are_those_of_integers() {
    for (p, operation) in [(113, Operation::Add), (6, Operation::Subtract)] {
        let task = ModularAddition::new(p, operation);
        let all = task.inputs().unwrap();
        assert_eq!(all.batch(), p * p);
        for sequence in rows(&all) {
            let n = p as i64;
            let right = match operation {
                Operation::Add => sequence[0] + sequence[1],
                Operation::Subtract => sequence[0] - sequence[1],
            };
            assert_eq!(task.solve(sequence), [right.rem_euclid(n) as usize]);
            assert_eq!(sequence[2], n);
        }
        // The space is the list.
        let space = task.space().unwrap();
        assert_eq!(space.size(), (p * p) as u128);
        for i in [0, 1, p, p * p - 1] {
            assert_eq!(space.sequence(i as u128), all.sequence(i));
        }
        assert!(task.label(task.tokens(100, 3)).is_ok());
    }
    let task = ModularAddition::default();
    for (text, said) in [
        ("3", "1 tokens, expected 3"),
        ("3 113", "unknown token `113`"),
        ("= 4", "position 0 is =, expected a residue, 0..=112"),
        ("4 5 6", "position 2 is 6, expected ="),
    ] {
        let error = task.parse(text).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    // A model says its modulus, and is not taken for one of two integers.
    let config = |p: usize| {
        let json = format!(
            r#"{{"n_layers": 1, "d_model": 4, "n_ctx": 3, "d_head": 2, "d_vocab": {}, "d_vocab_out": {p}, "d_mlp": 5, "act_fn": "relu"}}"#,
            p + 1
        );
        Config::from_json(&json).unwrap()
    };
    assert_eq!(
        BuiltIn::fitting(&config(113)),
        Some(BuiltIn::ModularAddition)
    );
    let sized = BuiltIn::ModularAddition.sized(&config(59));
    assert_eq!(sized.inputs().unwrap().batch(), 59 * 59);
}

#[test]
fn shares_are_seeded_and_share_nothing() {
    let task = ModularAddition::default();
    let all = task.label(task.inputs().unwrap()).unwrap();
    let (train, held_out) = all.share(ModularAddition::SHARE, 1);
    assert_eq!((train.batch(), held_out.batch()), (3_830, 8_939));
    let both: BTreeSet<&[i64]> = rows(&train.tokens).chain(rows(&held_out.tokens)).collect();
    assert_eq!(both.len(), 12_769);
    // PyTorch's permutation begins with pair 984.
    assert_eq!(train.tokens.sequence(0), [984 / 113, 984 % 113, 113]);
    assert_ne!(train, all.share(ModularAddition::SHARE, 2).0);
    assert_eq!(all.share(0.0, 1).0.batch() + all.share(1.0, 1).1.batch(), 0);
}

// ---- All of them

#[test]
fn published_labels_are_the_solutions() {
    let Some(root) = reference::root() else {
        return;
    };
    let mut seen = 0;
    for (task, files) in [
        (
            BuiltIn::Palindrome,
            &["dataset", "dataset_100", "dataset_500"][..],
        ),
        (BuiltIn::Brackets, &["dataset"]),
    ] {
        let folder = root.join(task.to_string());
        let task = task.task();
        for file in files {
            let path = folder.join(format!("{file}.safetensors"));
            let (tokens, labels) = dataset(path, task.label_key().unwrap());
            let solved = task.label(tokens).unwrap().answers;
            let solved = solved.classes().unwrap().iter().map(|&c| c as i64);
            assert!(solved.eq(labels.iter().copied()), "{file}");
            seen += labels.len();
        }
    }
    // Those whose tokens say what is right.
    let file = TensorFile::open(root.join("palindrome/pairs.safetensors")).unwrap();
    for (key, class) in [("palindromic", 1), ("nonpalindromic", 0)] {
        let (shape, ids) = file.integer(key).unwrap();
        let tokens = Tokens::new(shape[0], shape[1], ids);
        let solved = Palindromes::default().label(tokens).unwrap().answers;
        assert!(
            solved.classes().unwrap().iter().all(|&c| c == class),
            "{key}"
        );
        seen += shape[0];
    }
    let file = TensorFile::open(root.join("sorted_list/dataset.safetensors")).unwrap();
    let lists = SortedLists::default();
    let solved = lists.label(Tokens::from_file(&file).unwrap()).unwrap();
    let next = Answers::next_tokens(&solved.tokens, &lists.read_at()).unwrap();
    assert_eq!(solved.answers, next);
    seen += solved.batch();
    println!("{seen} sequences");
    assert_eq!(seen, 2500 + 100 + 500 + 5000 + 2000 + 500);

    let path = root.join("two_integer/labels.safetensors");
    let (_, labels) = TensorFile::open(&path).unwrap().integer("labels").unwrap();
    let task = TwoIntegers::new(LabelTable::open(&path).unwrap());
    for s in rows(&task.inputs().unwrap()) {
        assert_eq!(
            task.solve(s)[0] as i64,
            labels[(s[0] * 113 + s[1]) as usize]
        );
    }
}

#[test]
fn the_published_models_fit_their_tasks() {
    let Some(root) = reference::root() else {
        return;
    };
    let tasks = [BuiltIn::Palindrome, BuiltIn::SortedList, BuiltIn::Brackets];
    for model in tasks {
        let folder = root.join(model.to_string());
        let config = Config::open(folder.join("config.json")).unwrap();
        for task in BuiltIn::ALL {
            assert_eq!(task.task().check_model(&config).is_ok(), task == model);
        }
    }
    let brackets = Config::open(root.join("brackets/config.json")).unwrap();
    assert_eq!(brackets.pad_token, Some(Brackets::default().pad_token()));
}

#[test]
fn built_in_tasks_keep_the_contract() {
    for built_in in BuiltIn::ALL {
        let task = built_in.task();
        assert_eq!(task.name(), built_in.to_string());
        assert_eq!(task.name().parse::<BuiltIn>().unwrap(), built_in);
        let data = task.generate(200, 9);
        assert_eq!(data.tokens.pos(), task.positions());
        assert_eq!((data.batch(), data.answers.batch()), (200, 200));
        assert_eq!(data.answers.positions(), task.read_at());
        assert_eq!(data, task.generate(200, 9), "the seed says it all");
        assert_ne!(data, task.generate(200, 10));
        let classes = task.classes();
        for (i, s) in rows(&data.tokens).enumerate() {
            assert_eq!(task.parse(&task.text(s)).unwrap(), s);
            assert_eq!(
                task.vocabulary().words(&task.vocabulary().text(s)).unwrap(),
                s
            );
            let right = task.solve(s);
            assert_eq!(right.len(), task.read_at().len());
            assert_eq!(data.answers.get(i, 0).class, Some(right[0]));
            assert!(task.describe(s).ends_with(&classes[*right.last().unwrap()]));
            assert!(task.check(&s[1..]).is_err());
            // No token may stand anywhere but where the form has it.
            for (p, wrong) in [(0, -1), (task.positions() - 1, 1000)] {
                let mut other = s.to_vec();
                other[p] = wrong;
                let said = task.check(&other).unwrap_err().to_string();
                assert!(
                    said.contains(&format!("token {wrong} at position {p}")),
                    "{said}"
                );
            }
        }
        // Nothing, and one sequence, are sizes too.
        assert_eq!(
            (task.generate(0, 0).batch(), task.generate(1, 0).batch()),
            (0, 1)
        );
    }
}

#[test]
fn datasets_are_written_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.safetensors");
    for built_in in BuiltIn::ALL {
        let task = built_in.task();
        let data = task.generate(20, 2);
        data.save(task.as_ref(), &path).unwrap();
        let file = TensorFile::open(&path).unwrap();
        let tokens = Tokens::from_file(&file).unwrap();
        assert_eq!(tokens, data.tokens);
        let answers = match task.label_key() {
            Some(key) => Answers::from_file(&file, key, &tokens, &task.read_at()).unwrap(),
            None => Answers::next_tokens(&tokens, &task.read_at()).unwrap(),
        };
        assert_eq!(answers, data.answers);
        assert_eq!(
            file.names().count(),
            1 + usize::from(task.label_key().is_some())
        );
    }
}

#[test]
fn what_a_person_may_write_wrong() {
    let parse = |task: BuiltIn, text: &str| task.task().parse(text).unwrap_err().to_string();
    let nineteen = "1 ".repeat(19);
    for (task, text, said) in [
        (BuiltIn::Palindrome, &nineteen[..], "19 tokens, expected 22"),
        (
            BuiltIn::Palindrome,
            "STRAT",
            "unknown token `STRAT`; did you mean `START`?",
        ),
        (
            BuiltIn::Palindrome,
            &(nineteen.clone() + "31"),
            "unknown token `31`",
        ),
        (
            BuiltIn::Palindrome,
            &(nineteen.clone() + "END"),
            "position 20 is END, expected a value, 0..=30",
        ),
        (BuiltIn::SortedList, "1 2 3", "3 values, expected 10"),
        (
            BuiltIn::SortedList,
            "1 2 3 4 5 6 7 8 9 51",
            "unknown token `51`",
        ),
        (
            BuiltIn::SortedList,
            "1 2 3 4 5 6 7 8 9 SEP",
            "position 9 is SEP, expected a value",
        ),
        (
            BuiltIn::SortedList,
            "1 2 3 4 5 6 7 8 9 0 SEP 0 1 2 3 4 5 6 7 9 8",
            "position 19 is 9, expected 8",
        ),
        (
            BuiltIn::SortedList,
            "1 2 3 4 5 6 7 8 9 0 1 0 1 2 3 4 5 6 7 9 8",
            "position 10 is 1, expected SEP",
        ),
        (BuiltIn::Brackets, "(]", "`]` at 1: expected ( or )"),
        (
            BuiltIn::Brackets,
            &"(".repeat(41),
            "41 brackets, expected at most 40",
        ),
        (BuiltIn::TwoInteger, "3", "1 tokens, expected 3"),
        (BuiltIn::TwoInteger, "3 113", "unknown token `113`"),
        (
            BuiltIn::TwoInteger,
            "3 = =",
            "position 1 is =, expected an integer, 0..=112",
        ),
        (BuiltIn::TwoInteger, "3 4 5", "position 2 is 5, expected ="),
    ] {
        let found = parse(task, text);
        assert!(
            found.contains(said) && !found.contains('\n'),
            "{text}: {found}"
        );
    }
    let brackets = Brackets::default();
    for (change, said) in [
        ((0, 3), "position 0 is (, expected [start]"),
        ((1, 1), "position 1 is [pad], expected [end]"),
        ((5, 3), "position 5 is (, expected [pad]"),
        ((3, 3), "position 4 is [pad], expected [end]"),
    ] {
        let mut s = brackets.sequence("()").unwrap();
        s[change.0] = change.1;
        assert_eq!(brackets.check(&s).unwrap_err().to_string(), said);
    }
    let full = [vec![0], vec![3; 41]].concat();
    let said = brackets.check(&full).unwrap_err().to_string();
    assert_eq!(said, "position 41 is (, expected [end]");
    let said = brackets.label(Tokens::from_rows(&[&full])).unwrap_err();
    assert_eq!(
        said.to_string(),
        "sequence 0: position 41 is (, expected [end] (the task brackets: [start], at most 40 brackets, [end], and [pad] \
         from there on)"
    );
    // Sequences of other tasks: which is expected is said.
    let list = SortedLists::default().tokens(1, 0);
    for (task, said) in [
        (
            BuiltIn::Palindrome,
            "sequence 0: 21 tokens, expected 22 (the task palindrome: START, 20 values, END)",
        ),
        (
            BuiltIn::TwoInteger,
            "sequence 0: 21 tokens, expected 3 (the task two_integer: two integers, =)",
        ),
    ] {
        let error = task.task().label(list.clone()).unwrap_err();
        assert_eq!(error.to_string(), said);
    }
    let palindrome = Palindromes::default().tokens(1, 0);
    let error = SortedLists::default().label(palindrome).unwrap_err();
    assert_eq!(
        error.to_string(),
        "sequence 0: 22 tokens, expected 21 (the task sorted_list: 10 values, SEP, the 10 values sorted)"
    );
}

/// A user's own: which of three letters comes first in the alphabet, and which last.
struct Extremes(Vocabulary);

impl Task for Extremes {
    fn name(&self) -> String {
        "extremes".into()
    }
    fn vocabulary(&self) -> &Vocabulary {
        &self.0
    }
    fn classes(&self) -> Vec<String> {
        self.0.names().to_vec()
    }
    fn positions(&self) -> usize {
        3
    }
    fn read_at(&self) -> Vec<usize> {
        vec![1, 2]
    }
    fn tokens(&self, size: usize, seed: u64) -> Tokens {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let ids = (0..3 * size).map(|_| rng.random_range(0..4));
        Tokens::new(size, 3, ids.collect())
    }
    fn check(&self, sequence: &[i64]) -> Result<()> {
        self.0.check(sequence, 3)
    }
    fn solve(&self, sequence: &[i64]) -> Vec<usize> {
        let sorted: BTreeSet<i64> = sequence.iter().copied().collect();
        let ends = [sorted.first(), sorted.last()];
        ends.map(|e| *e.unwrap() as usize).to_vec()
    }
}

#[test]
fn a_task_of_ones_own() {
    let own: Box<dyn Task> = Box::new(Extremes(Vocabulary::new(["a", "b", "c", "d"])));
    assert_eq!(own.describe(&own.parse("c a d").unwrap()), "c a d → a d");
    assert!(own.parse("c a e").is_err() && own.parse("c a").is_err());
    assert_eq!(own.inputs(), None);
    let (train, held_out) = own.generate(9, 0).halves(0);
    assert_eq!((train.batch(), held_out.batch()), (5, 4));
    assert_eq!(train.answers.positions(), [1, 2]);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.safetensors");
    train.save(own.as_ref(), &path).unwrap();
    let file = TensorFile::open(&path).unwrap();
    let answers = Answers::from_file(&file, "labels", &train.tokens, &own.read_at()).unwrap();
    assert_eq!(answers, train.answers);
    // Where no answer is read there is none.
    let (_, labels) = file.integer("labels").unwrap();
    assert!(labels.chunks(3).all(|s| s[0] == -1 && s[1] >= 0));

    let config = r#"{"n_layers": 1, "d_model": 4, "n_ctx": 3, "d_head": 2, "d_vocab": 4, "attn_only": true}"#;
    let config = |from: &str, to: &str| Config::from_json(&config.replace(from, to)).unwrap();
    own.check_model(&config("", "")).unwrap();
    for (from, to, said) in [
        (
            "\"d_vocab\": 4",
            "\"d_vocab\": 5",
            "config field `d_vocab`: 5, expected 4 for the task extremes",
        ),
        (
            "\"n_ctx\": 3",
            "\"n_ctx\": 2",
            "config field `n_ctx`: 2, expected at least 3 for the task extremes",
        ),
        (
            "\"d_vocab\": 4",
            "\"d_vocab\": 4, \"d_vocab_out\": 2",
            "config field `d_vocab_out`: 2, expected 4 for the task extremes",
        ),
    ] {
        let error = own.check_model(&config(from, to)).unwrap_err();
        assert_eq!(error.to_string(), said);
    }
}
