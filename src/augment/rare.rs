//! Training samples drawn for their rare classes, so that those are learned too.
//!
//! DAFormer's rare class sampling (Hoyer et al., arXiv 2111.14887, section 3.2): a class is drawn with the probability
//! softmax((1 - f) / T), f being its share of the labelled pixels, then one of the images that hold it. Where DAFormer
//! redraws the crop until it has enough of the class, here the crop is laid around one of its pixels at once.

use serde::{Deserialize, Serialize};

use crate::dataset::{Dataset, LabelCounts};
use crate::error::{Error, Result};
use crate::rng::Rng;

/// `[data.augment.rare_class]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RareClass {
    /// The share of the samples that are drawn so; the others are drawn as ever, each image once a pass.
    pub share: f64,
    /// T: the smaller, the more the rarest class is preferred; with a large one all classes are drawn alike.
    pub temperature: f64,
}

impl Default for RareClass {
    fn default() -> Self {
        Self { share: 0.5, temperature: 0.01 }
    }
}

impl RareClass {
    pub(crate) fn check(self) -> Result<()> {
        for (key, value, most) in [("share", self.share, 1.0), ("temperature", self.temperature, 1e6)] {
            if !(value > 0.0 && value <= most) {
                return Err(Error::new(format!(
                    "`rare_class.{key}` of the augmentation must be above 0 and at most {most}"
                ))
                .with_hint("leave `rare_class` out to draw no samples for rare classes"));
            }
        }
        Ok(())
    }
}

/// What to draw from.
#[derive(Clone, Debug)]
pub struct RareClasses {
    share: f32,
    /// Each class that occurs, with the probability that it or one before it is drawn, and the images that hold it.
    classes: Vec<(u8, f64, Vec<u32>)>,
}

impl RareClasses {
    /// From a survey of the training set, in which something is labelled; 255 is not a class.
    pub fn new(config: RareClass, survey: LabelCounts) -> Self {
        let LabelCounts { mut pixels, mut holders } = survey;
        pixels.truncate(255);
        holders.truncate(255);
        let labeled = pixels.iter().sum::<u64>().max(1) as f64;
        // Relative to the rarest, so that the largest exponent is 0.
        let rarest = pixels.iter().copied().filter(|count| *count > 0).min().unwrap_or(0);
        let weight = |count: u64| ((rarest as f64 - count as f64) / labeled / config.temperature).exp();
        let present = pixels.iter().zip(holders).enumerate().filter(|(_, (count, _))| **count > 0);
        let mut classes: Vec<_> =
            present.map(|(class, (count, holders))| (class as u8, weight(*count), holders)).collect();
        let sum: f64 = classes.iter().map(|(_, weight, _)| weight).sum();
        let mut before = 0.0;
        for (_, weight, _) in &mut classes {
            before += *weight / sum;
            *weight = before;
        }
        Self { share: config.share as f32, classes }
    }

    /// Looks at a set's masks; at its samples where it has no masks to look at.
    ///
    /// # Errors
    /// A sample that cannot be read.
    pub fn of(config: RareClass, dataset: &dyn Dataset) -> Result<Self> {
        Ok(Self::new(config, LabelCounts::of(dataset)?))
    }

    /// Sometimes an image and the class that it is drawn for.
    pub(crate) fn draw(&self, rng: &mut Rng) -> Option<(usize, u8)> {
        if !rng.chance(self.share) {
            return None;
        }
        let u = f64::from(rng.uniform());
        let (class, _, holders) = self.classes.iter().find(|(_, up_to, _)| u < *up_to).or(self.classes.last())?;
        Some((holders[rng.below(holders.len())] as usize, *class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::AugmentConfig;
    use crate::dataset::{Classes, Sample};
    use crate::image::{Image, Labels};
    use crate::loader::Loader;
    use std::sync::Arc;

    /// 50 pictures of one class, three of which hold 8 x 8 pixels of another, in a corner; a third class is absent.
    struct Seldom(Classes);

    impl Seldom {
        fn new() -> Self {
            Self(Classes { names: ["ground", "seldom", "absent"].map(str::to_owned).into(), colors: vec![[0; 3]; 3] })
        }
    }

    impl Dataset for Seldom {
        fn len(&self) -> usize {
            50
        }

        fn get(&self, index: usize) -> Result<Sample> {
            let (width, height) = (64, 48);
            let mut ids = vec![0; width * height];
            if index % 20 == 7 {
                (0..8).for_each(|y| ids[(40 + y) * width + 56..][..8].fill(1));
            }
            ids[..width].fill(255);
            let image = Image { width, height, pixels: vec![index as u8; width * height * 3] };
            Ok(Sample { image, labels: Labels { width, height, ids } })
        }

        fn name(&self, index: usize) -> String {
            index.to_string()
        }

        fn classes(&self) -> &Classes {
            &self.0
        }
    }

    fn loader(rare: Option<RareClass>, start: u64, workers: usize) -> Loader {
        let augment = AugmentConfig { rare_class: rare, ..AugmentConfig::plain([16, 16]) };
        Loader::new(Arc::new(Seldom::new()), augment, 4, 5, start, workers).unwrap()
    }

    #[test]
    fn rare_classes_come_as_often_as_estimated_and_lie_in_the_crop() {
        let seen = |rare: Option<RareClass>| {
            let mut loader = loader(rare, 0, 1);
            let mut holding = 0;
            for _ in 0..500 {
                let batch = loader.next().unwrap();
                holding += batch.labels.chunks(16 * 16).filter(|ids| ids.contains(&1)).count();
            }
            holding as f64 / 2000.0
        };
        let ever = seen(None);
        assert!(ever < 0.03, "{ever}");
        let at = |share, temperature| seen(Some(RareClass { share, temperature }));
        // At T = 0.01 the other class, 99.9 % of the pixels, is never drawn; at a large T both are drawn alike.
        for (found, estimated) in [(at(0.5, 0.01), 0.5), (at(1.0, 0.01), 1.0), (at(0.4, 1e6), 0.2)] {
            assert!((found - estimated - (1.0 - estimated) * ever).abs() < 0.03, "{found} for {estimated}");
        }
    }

    #[test]
    fn workers_and_resuming_change_nothing() {
        let batches = |rare, start, workers, count| {
            let mut loader = loader(rare, start, workers);
            (0..count).map(|_| loader.next().unwrap()).collect::<Vec<_>>()
        };
        let rare = Some(RareClass::default());
        let all = batches(rare, 0, 1, 12);
        assert_eq!(all, batches(rare, 0, 3, 12));
        assert_eq!(all[7..], batches(rare, 7, 2, 5));
        // Samples that are not drawn for a class are those of a run without.
        let plain = batches(None, 0, 1, 12);
        let same = all.iter().zip(&plain).flat_map(|(a, b)| a.names.iter().zip(&b.names)).filter(|(a, b)| a == b);
        assert!((12..40).contains(&same.count()));
    }

    #[test]
    fn nothing_is_drawn_for_what_is_ignored_or_absent() {
        let rare = RareClasses::of(RareClass { share: 1.0, temperature: 1e6 }, &Seldom::new()).unwrap();
        let mut rng = Rng::new(1, &[]);
        let mut counts = [0; 256];
        for _ in 0..400 {
            let (index, class) = rare.draw(&mut rng).unwrap();
            counts[usize::from(class)] += 1;
            assert!(class == 0 || index % 20 == 7);
        }
        assert!(counts[0] > 150 && counts[1] > 150 && counts[0] + counts[1] == 400, "{counts:?}");
        for wrong in [RareClass { share: 0.0, ..RareClass::default() }, RareClass { temperature: f64::NAN, share: 0.5 }]
        {
            let error = AugmentConfig { rare_class: Some(wrong), ..AugmentConfig::default() }.check().unwrap_err();
            assert!(error.to_string().contains("rare_class"), "{error}");
        }
    }
}
