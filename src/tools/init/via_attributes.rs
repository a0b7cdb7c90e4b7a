//! Which of the attributes that VIA's regions have is their class.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::text::{Rest, shortened};
use crate::tools::init::notes::Notes;

/// What the attribute of the class is called, the surest first.
const KNOWN: [&str; 8] = ["class", "label", "category", "class_name", "classname", "type", "name", "object"];

/// Names of these that stand for a class whatever their values are.
const SURE: usize = 5;

/// Fewer regions do not tell numbers of objects from classes.
const FEWEST: usize = 6;

/// The class of regions that have no attribute.
const ONLY: &str = "object";

/// How many values are named.
const SHOWN: usize = 4;

/// The attributes of all regions.
#[derive(Default)]
pub(super) struct Attributes {
    regions: usize,
    found: BTreeMap<String, ClassAttribute>,
}

#[derive(Default)]
struct ClassAttribute {
    regions: usize,
    values: BTreeSet<String>,
}

impl ClassAttribute {
    /// Nearly every region has a value of its own: these count or describe objects.
    fn is_own(&self) -> bool {
        self.regions >= FEWEST && 2 * self.values.len() > self.regions
    }

    fn text(&self) -> String {
        let shown = shortened(self.values.iter().map(|value| format!("`{value}`")), SHOWN, Rest::Dots);
        let values = if self.values.len() == 1 { "value" } else { "values" };
        format!("{} {values} in {} regions: {shown}", self.values.len(), self.regions)
    }
}

/// The attribute that is the class.
pub(super) struct Chosen(Option<String>);

impl Attributes {
    pub(super) fn of<'a>(regions: impl Iterator<Item = &'a Value>) -> Self {
        let mut all = Self::default();
        for what in regions {
            all.regions += 1;
            for (name, value) in what.as_object().into_iter().flatten() {
                let Some(value) = values(value).into_iter().next() else { continue };
                let found = all.found.entry(name.clone()).or_default();
                found.regions += 1;
                found.values.insert(value);
            }
        }
        all
    }

    /// The attribute that is called as classes are, or else the one that most regions have; of several, the one of the
    /// most values. Never one that numbers the regions.
    pub(super) fn choose(self, notes: &mut Notes) -> Chosen {
        let known = |name: &str| {
            let name = name.trim().to_lowercase();
            KNOWN.iter().position(|known| *known == name)
        };
        let may_be = |name: &str, found: &ClassAttribute| known(name).is_some_and(|at| at < SURE) || !found.is_own();
        let best = self
            .found
            .iter()
            .filter(|(name, found)| may_be(name, found))
            .max_by_key(|(name, found)| {
                let most = 2 * found.regions > self.regions;
                let called = known(name).filter(|_| most).map_or(0, |at| KNOWN.len() - at);
                (called, found.values.len() > 1, found.regions, found.values.len(), std::cmp::Reverse(name.as_str()))
            })
            .map(|(name, found)| (name.clone(), found));
        let Some((name, found)) = best else {
            if self.regions > 0 {
                let own = |(name, found): (&String, &ClassAttribute)| format!("`{name}` has {}", found.text());
                let own: Vec<String> = self.found.iter().map(own).collect();
                let why = if own.is_empty() { "they have no attributes".to_string() } else { own.join("; ") };
                notes.add_many(format!("regions name no class and are all `{ONLY}`"), self.regions, why);
            }
            return Chosen(None);
        };
        let others: Vec<String> = self
            .found
            .iter()
            .filter(|(other, _)| **other != name)
            .map(|(other, found)| format!("`{other}` ({})", found.text()))
            .collect();
        if !others.is_empty() {
            let why = if known(&name).is_some() { "by its name" } else { "by its values" };
            notes.add(
                "the attribute of the class was chosen; if it is another one, call that one `class` in VIA",
                format!("`{name}`, {why} ({}); not used: {}", found.text(), others.join("; ")),
            );
        } else if known(&name).is_none() {
            notes.add("the class is the only attribute", format!("`{name}` ({})", found.text()));
        }
        Chosen(Some(name))
    }
}

impl Chosen {
    /// The class of a region.
    ///
    /// # Errors
    /// A region without a value of the attribute, or with several that are ticked.
    pub(super) fn class(&self, what: &Value) -> Result<String> {
        let Some(name) = &self.0 else { return Ok(ONLY.to_string()) };
        let found = what.as_object().and_then(|map| map.get(name)).map(values).unwrap_or_default();
        match found.as_slice() {
            [only] => Ok(only.clone()),
            [] => Err(Error::new(format!("it has no `{name}`, which is the attribute of the class"))),
            several => Err(Error::new(format!("it is {} at once, by its `{name}`", several.join(" and ")))),
        }
    }
}

/// The values of an attribute: text or a number; of boxes, those that are ticked.
fn values(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => vec![text.trim().to_string()],
        Value::Number(number) => vec![number.to_string()],
        Value::Object(ticks) => {
            ticks.iter().filter(|(_, tick)| **tick == Value::Bool(true)).map(|(name, _)| name.clone()).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The attribute that is chosen among those of some regions, and what is said.
    fn chosen(regions: &[Value]) -> (Option<String>, String) {
        let mut notes = Notes::default();
        let chosen = Attributes::of(regions.iter()).choose(&mut notes);
        (chosen.0, notes.lines().join("\n"))
    }

    #[test]
    fn the_class_is_told_from_other_attributes() {
        let regions = |of: &dyn Fn(usize) -> Value| (0..8).map(of).collect::<Vec<_>>();
        let color = |at: usize| ["red", "blue"][at % 2];
        // By its name; not by a number of its own; by having more than one value.
        let (name, said) = chosen(&regions(&|at| json!({"a": "x", "Label": color(at)})));
        assert_eq!(name.as_deref(), Some("Label"));
        assert!(said.contains("`a` (1 value in 8 regions: `x`)") && said.contains("by its name"), "{said}");
        let (name, said) = chosen(&regions(&|at| json!({"id": at, "colour": color(at)})));
        assert_eq!(name.as_deref(), Some("colour"), "{said}");
        let (name, said) = chosen(&regions(&|at| json!({"name": format!("leaf {at}"), "colour": color(at)})));
        assert_eq!(name.as_deref(), Some("colour"), "{said}");
        let (name, said) = chosen(&regions(&|at| json!({"quality": "good", "defect": color(at)})));
        assert_eq!(name.as_deref(), Some("defect"));
        assert!(said.contains("by its values") && said.contains("call that one `class`"), "{said}");
        // A class that few regions have is none.
        let (name, _) =
            chosen(&regions(&|at| if at == 0 { json!({"type": "x", "c": "a"}) } else { json!({"c": color(at)}) }));
        assert_eq!(name.as_deref(), Some("c"));
        let (name, said) = chosen(&regions(&|at| json!({"id": at})));
        assert_eq!(name, None);
        assert!(said.contains("are all `object` (8)") && said.contains("`id` has 8 values"), "{said}");
        let (name, said) = chosen(&regions(&|_| json!({})));
        assert!(name.is_none() && said.contains("no attributes"), "{said}");
        let (name, said) = chosen(&regions(&|at| json!({"class": color(at)})));
        assert_eq!((name.as_deref(), said.as_str()), (Some("class"), ""), "nothing to say");
    }

    #[test]
    fn regions_without_a_class_have_none() {
        let chosen = Chosen(Some("kind".to_string()));
        assert_eq!(chosen.class(&json!({"kind": {"a": false, "b": true}})).unwrap(), "b");
        for (what, why) in [
            (json!({"kind": ""}), "has no `kind`"),
            (json!({"id": 3}), "has no `kind`"),
            (json!({"kind": {"a": true, "b": true}}), "a and b at once"),
        ] {
            assert!(chosen.class(&what).unwrap_err().to_string().contains(why), "{what}");
        }
    }
}
