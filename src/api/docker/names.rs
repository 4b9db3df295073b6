//! Names for services that were given none, as Docker makes them up: `brisk_heron`.

#[rustfmt::skip]
const HOW: [&str; 32] = [
    "agile", "amber", "bold", "bright", "brisk", "calm", "clever", "coastal", "dapper", "eager", "early", "fleet", "gentle",
    "golden", "hardy", "keen", "lively", "lucid", "mellow", "merry", "nimble", "northern", "patient", "quiet", "sharp",
    "silver", "steady", "sunny", "swift", "tidy", "vivid", "wise",
];
#[rustfmt::skip]
const WHO: [&str; 32] = [
    "avocet", "bittern", "crane", "curlew", "dipper", "dunlin", "egret", "falcon", "finch", "gannet", "godwit", "goshawk",
    "grebe", "heron", "ibis", "jay", "kestrel", "knot", "lark", "martin", "osprey", "oriole", "petrel", "pipit", "plover",
    "robin", "shrike", "siskin", "starling", "swallow", "tern", "wren",
];

/// From a random number. One in a hundred thousand may be taken, which is refused like any other name that is.
pub fn made_up(random: u128) -> String {
    let pick = |words: &[&'static str; 32], shift: u32| words[(random >> shift) as usize % 32];
    format!("{}_{}{}", pick(&HOW, 0), pick(&WHO, 8), (random >> 16) % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_an_adjective_a_bird_and_a_number() {
        assert_eq!(made_up(0x2a_0d_04), "brisk_heron42");
        assert_ne!(made_up(1), made_up(2));
    }
}
