//! Datasets made of others: several splits as one, and labels renumbered to a model's classes by their names.

use std::collections::HashSet;
use std::sync::Arc;

use crate::dataset::{Classes, Dataset, LabelCounts, Sample, Split};
use crate::error::{Error, Result};
use crate::image::IGNORE;

/// Splits of one dataset, one after the other. Samples of one name are called after their split too.
pub struct JoinedSplits {
    parts: Vec<(Split, Arc<dyn Dataset>)>,
    /// Names that samples of several splits have.
    repeated: HashSet<String>,
}

impl JoinedSplits {
    /// Those parts that are given.
    ///
    /// # Errors
    /// There are none.
    pub fn new(parts: Vec<(Split, Arc<dyn Dataset>)>) -> Result<Self> {
        match parts.is_empty() {
            true => {
                Err(Error::new("the dataset describes no split")
                    .with_hint("give its TOML a [val] with images and masks"))
            }
            false => {
                let (mut seen, mut repeated) = (HashSet::new(), HashSet::new());
                for (_, part) in &parts {
                    let names: HashSet<String> = (0..part.len()).map(|index| part.name(index)).collect();
                    repeated.extend(names.iter().filter(|name| seen.contains(*name)).cloned());
                    seen.extend(names);
                }
                Ok(Self { parts, repeated })
            }
        }
    }

    fn find(&self, mut index: usize) -> (Split, &dyn Dataset, usize) {
        for (split, part) in &self.parts {
            if index < part.len() {
                return (*split, part.as_ref(), index);
            }
            index -= part.len();
        }
        unreachable!("an index is below the length")
    }
}

impl Dataset for JoinedSplits {
    fn len(&self) -> usize {
        self.parts.iter().map(|(_, part)| part.len()).sum()
    }

    fn get(&self, index: usize) -> Result<Sample> {
        let (_, part, index) = self.find(index);
        part.get(index)
    }

    fn name(&self, index: usize) -> String {
        let (split, part, index) = self.find(index);
        let name = part.name(index);
        if self.repeated.contains(&name) { format!("{name} ({split})") } else { name }
    }

    fn classes(&self) -> &Classes {
        self.parts[0].1.classes()
    }

    fn survey(&self) -> Result<Option<LabelCounts>> {
        let mut all = LabelCounts::default();
        let mut before = 0;
        for (_, part) in &self.parts {
            let Some(found) = part.survey()? else { return Ok(None) };
            all.pixels.iter_mut().zip(&found.pixels).for_each(|(sum, count)| *sum += count);
            for (holders, more) in all.holders.iter_mut().zip(&found.holders) {
                holders.extend(more.iter().map(|index| index + before));
            }
            before += part.len() as u32;
        }
        Ok(Some(all))
    }
}

/// A dataset whose labels are those of other classes, matched by name.
pub struct Matched {
    inner: Arc<dyn Dataset>,
    classes: Classes,
    /// The new label of every old one.
    labels: [u8; 256],
}

impl Matched {
    /// `inner` with the labels of `classes`; also the names among these that it has no class for.
    ///
    /// # Errors
    /// `inner`, which is called `name`, has a class that `classes` lack.
    pub fn new(inner: Arc<dyn Dataset>, classes: &Classes, name: &str) -> Result<(Self, Vec<String>)> {
        let own = &inner.classes().names;
        let quoted = |names: &[&String]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let extra: Vec<&String> = own.iter().filter(|name| !classes.names.contains(name)).collect();
        let absent: Vec<&String> = classes.names.iter().filter(|name| !own.contains(name)).collect();
        if !extra.is_empty() {
            let lacks = if absent.is_empty() { "nothing".to_owned() } else { quoted(&absent) };
            return Err(Error::new(format!(
                "the classes of `{name}` are not the model's: it has {}, which the model does not know, and lacks {lacks}; \
                 the model knows {}; `{name}` has {}",
                quoted(&extra),
                classes.names.join(", "),
                own.join(", "),
            )));
        }
        let mut labels = [IGNORE; 256];
        for (label, name) in own.iter().enumerate() {
            let at = classes.names.iter().position(|known| known == name);
            labels[label] = at.and_then(|at| u8::try_from(at).ok()).unwrap_or(IGNORE);
        }
        let absent = absent.into_iter().cloned().collect();
        Ok((Self { inner, classes: classes.clone(), labels }, absent))
    }
}

impl Dataset for Matched {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn get(&self, index: usize) -> Result<Sample> {
        let mut sample = self.inner.get(index)?;
        sample.labels.ids.iter_mut().for_each(|id| *id = self.labels[usize::from(*id)]);
        Ok(sample)
    }

    fn name(&self, index: usize) -> String {
        self.inner.name(index)
    }

    fn classes(&self) -> &Classes {
        &self.classes
    }

    fn survey(&self) -> Result<Option<LabelCounts>> {
        let Some(found) = self.inner.survey()? else { return Ok(None) };
        let mut survey = LabelCounts::default();
        for (old, new) in self.labels.iter().enumerate() {
            let new = usize::from(*new);
            survey.pixels[new] += found.pixels[old];
            survey.holders[new].extend(&found.holders[old]);
        }
        survey.holders.iter_mut().for_each(|holders| {
            holders.sort_unstable();
            holders.dedup();
        });
        Ok(Some(survey))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::shapes::Shapes;

    fn shapes(split: Split) -> Arc<dyn Dataset> {
        Arc::new(Shapes::new(1, split, 3, 32))
    }

    #[test]
    fn splits_follow_one_another() {
        let parts = vec![(Split::Train, shapes(Split::Train)), (Split::Val, shapes(Split::Val))];
        let joined = JoinedSplits::new(parts).unwrap();
        assert_eq!(joined.len(), 6);
        assert_eq!(joined.get(4).unwrap(), shapes(Split::Val).get(1).unwrap());
        assert_eq!(joined.name(4), shapes(Split::Val).name(1));
        // Names that repeat are told apart, and in no form that a folder may have.
        let alike =
            JoinedSplits::new(vec![(Split::Train, shapes(Split::Val)), (Split::Test, shapes(Split::Val))]).unwrap();
        assert_eq!(alike.name(4), format!("{} (test)", shapes(Split::Val).name(1)));
        assert!(JoinedSplits::new(Vec::new()).is_err());
    }

    #[test]
    fn labels_follow_their_names() {
        let inner = shapes(Split::Val);
        let mut classes = inner.classes().clone();
        classes.names.reverse();
        classes.colors.reverse();
        classes.names.push("else".to_owned());
        classes.colors.push([1; 3]);
        let (matched, absent) = Matched::new(inner.clone(), &classes, "set").unwrap();
        assert_eq!((absent.as_slice(), matched.classes()), (&["else".to_owned()][..], &classes));
        let (before, after) = (inner.get(0).unwrap(), matched.get(0).unwrap());
        let named = |ids: &[u8], of: &Classes| -> Vec<Option<String>> {
            ids.iter().map(|id| of.names.get(usize::from(*id)).cloned()).collect()
        };
        assert_eq!(named(&before.labels.ids, inner.classes()), named(&after.labels.ids, &classes));
        let surveyed = LabelCounts::of(&matched).unwrap();
        assert_eq!(surveyed.pixels[5], LabelCounts::of(inner.as_ref()).unwrap().pixels[0]);

        classes.names[0] = "elsewhere".to_owned();
        let error = Matched::new(inner, &classes, "set").err().unwrap().to_string();
        assert!(error.contains("which the model does not know") && error.contains("lacks `elsewhere`"), "{error}");
    }
}
