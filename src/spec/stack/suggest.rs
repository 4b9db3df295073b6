//! "Did you mean": the known word nearest to a mistyped one.

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
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, where a dash for an underscore costs nothing.
fn distance(a: &str, b: &str) -> usize {
    let chars = |text: &str| text.chars().map(|c| if c == '-' { '_' } else { c }).collect::<Vec<_>>();
    let (a, b) = (chars(a), chars(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
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
        assert_eq!(nearest("banana", known), None);
        assert_eq!(nearest(&"x".repeat(1000), known), None);
    }
}
