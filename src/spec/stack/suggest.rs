//! "Did you mean": the known word nearest to a mistyped one.

use std::cmp::Reverse;

/// The nearest of `known`, where it is near enough to be what was meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let allowed = match word.chars().count() {
        0..=3 => 1,
        4..=7 => 2,
        _ => 3,
    };
    let lower = word.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (candidate, candidate.to_lowercase()))
        .map(|(candidate, known)| (distance(&lower, &known), Reverse(common_beginning(&lower, &known)), candidate))
        .filter(|(distance, ..)| *distance <= allowed)
        .min()
        .map(|(.., candidate)| candidate)
}

/// Of those that are equally near, one that begins alike is meant: slips come late in a word.
fn common_beginning(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count()
}

/// Levenshtein's distance, where two letters in each other's place are one slip (optimal string alignment), and a dash for
/// an underscore costs nothing.
fn distance(a: &str, b: &str) -> usize {
    let chars = |text: &str| text.chars().map(|c| if c == '-' { '_' } else { c }).collect::<Vec<_>>();
    let (a, b) = (chars(a), chars(b));
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let substituted = above[j] + usize::from(a[i] != b[j]);
            let mut least = substituted.min(row[j] + 1).min(above[j + 1] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["image", "environment", "env_file", "ports", "volumes"];
        assert_eq!(nearest("imge", known), Some("image"));
        assert_eq!(nearest("enviroment", known), Some("environment"));
        assert_eq!(nearest("env-file", known), Some("env_file"));
        assert_eq!(nearest("Ports", known), Some("ports"));
        assert_eq!(nearest("nam", ["Name"]), Some("Name"));
        assert_eq!(nearest("a_wbe", ["a_db", "a_web"]), Some("a_web"), "two letters in each other's place");
        assert_eq!(nearest("a_wb", ["a_db", "a_web"]), Some("a_web"), "they begin alike");
        assert_eq!(nearest("dgb", ["prod", "dbg"]), Some("dbg"));
        assert_eq!(nearest("banana", known), None);
        assert_eq!(nearest(&"x".repeat(1000), known), None);
    }
}
