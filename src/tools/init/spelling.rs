//! Names in several spellings, united.

/// A name without what spellings differ in: capitals, spaces, and marks between words. A single letter keeps its case,
/// for `A` and `a` are different letters.
pub(super) fn plain(name: &str) -> String {
    let name = name.trim();
    if name.chars().count() == 1 {
        return name.to_string();
    }
    let spaced: String = name.chars().map(|c| if matches!(c, '_' | '-') { ' ' } else { c }).collect();
    spaced.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Names of which those that differ in spelling alone are one.
pub(super) struct United {
    /// In their order, each as it is spelled most often.
    pub(super) names: Vec<String>,
    /// For each name before, its place among these.
    pub(super) places: Vec<usize>,
    /// What was united, in words.
    pub(super) said: Vec<String>,
    /// The names of each group of several.
    pub(super) groups: Vec<Vec<String>>,
}

/// Unites names; `counts` is how often each is used.
pub(super) fn unite(names: &[String], counts: &[usize]) -> United {
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    let mut places = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let plain = plain(name);
        let place = groups.iter().position(|(other, _)| *other == plain && !plain.is_empty());
        match place {
            Some(place) => groups[place].1.push(at),
            None => groups.push((plain, vec![at])),
        }
        places.push(place.unwrap_or(groups.len() - 1));
    }
    let count = |at: usize| counts.get(at).copied().unwrap_or(0);
    let (mut united, mut said, mut several) = (Vec::new(), Vec::new(), Vec::new());
    for (_, group) in groups {
        let most = group.iter().copied().max_by_key(|at| (count(*at), std::cmp::Reverse(*at))).unwrap_or(group[0]);
        united.push(names[most].clone());
        if group.len() > 1 {
            let all: Vec<String> = group.iter().map(|at| format!("`{}` ({})", names[*at], count(*at))).collect();
            said.push(format!("{} as `{}`", all.join(", "), names[most]));
            several.push(group.iter().map(|at| names[*at].clone()).collect());
        }
    }
    United { names: united, places, said, groups: several }
}

/// Whether a list holds the names of another in other places: some name of it stands elsewhere there.
pub(super) fn crosses(given: &[String], found: &[String]) -> bool {
    let found: Vec<String> = found.iter().map(|name| plain(name)).collect();
    let elsewhere = |(at, name): (usize, &String)| {
        let name = plain(name);
        found.get(at) != Some(&name) && found.contains(&name)
    };
    given.iter().enumerate().any(elsewhere)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn spellings_are_one_name() {
        let united = unite(
            &strings(&["Car", "a", "A", "car", "traffic light", "Traffic_Light ", "c", "c-"]),
            &[3, 1, 1, 9, 2, 2, 1, 1],
        );
        assert_eq!(united.names, ["car", "a", "A", "traffic light", "c"]);
        assert_eq!(united.places, [0, 1, 2, 0, 3, 3, 4, 4]);
        assert_eq!(united.said[0], "`Car` (3), `car` (9) as `car`");
        assert_eq!(united.said.len(), 3);
        let none = unite(&strings(&["", "", "x"]), &[]);
        assert_eq!((none.names.len(), none.said.len()), (3, 0), "what has no name is no name");
    }

    #[test]
    fn names_in_other_places_cross() {
        let found = strings(&["background", "red", "blue"]);
        assert!(crosses(&strings(&["background", "blue", "red"]), &found));
        assert!(crosses(&strings(&["background", "Blue", "other"]), &found));
        assert!(!crosses(&strings(&["background", "Red", "sky"]), &found));
        assert!(!crosses(&strings(&["a", "b", "c"]), &found));
    }
}
