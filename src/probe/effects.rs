//! Costs of changes: scores before and after on the same images, with paired intervals.

use std::rc::Rc;

use serde::Serialize;

use crate::error::Result;
use crate::image::Labels;
use crate::metrics::bootstrap::{differences, percentile_interval, true_ious};
use crate::metrics::boundary::{BAND, band_width, boundary_counts};
use crate::metrics::confusion::Confusion;
use crate::metrics::image_counts::ImageCounts;

/// With fewer images no interval is given: a bootstrap of a handful says nothing.
pub const LEAST_IMAGES: usize = 5;

/// A score before and after, as shares.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Effect {
    /// The score of the pictures as they are.
    pub before: Option<f64>,
    /// That of the changed ones.
    pub after: Option<f64>,
    /// The middle 95 % of the difference over draws of images; none with fewer than [`LEAST_IMAGES`].
    pub interval: Option<[f64; 2]>,
    /// The images whose truth counts for it.
    pub images: usize,
}

impl Effect {
    /// After less before: negative where the change costs something.
    pub fn change(&self) -> Option<f64> {
        Some(self.after? - self.before?)
    }

    /// Which share of the score is left.
    pub fn kept(&self) -> Option<f64> {
        self.before.filter(|before| *before > 0.0).and_then(|before| Some(self.after? / before))
    }

    /// Whether it costs at least `points`, and the interval has no part above zero.
    pub fn costs(&self, points: f64) -> bool {
        self.change().is_some_and(|change| change <= -points) && self.interval.is_some_and(|[_, high]| high < 0.0)
    }
}

/// What a change costs a class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassEffect {
    /// The class.
    pub class: String,
    /// Its IoU.
    pub iou: Effect,
    /// Its boundary IoU; none where the change leaves no contours.
    pub boundary_iou: Option<Effect>,
}

/// What a change costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Effects {
    /// The name of the change.
    pub name: String,
    /// The images that it could be made on.
    pub images: usize,
    /// The mean IoU over the classes that the truth holds where it counts.
    pub miou: Effect,
    /// The mean boundary IoU.
    pub boundary_miou: Option<Effect>,
    /// One for each class.
    pub classes: Vec<ClassEffect>,
}

/// The counts of images before and after a change.
#[derive(Clone, Debug, Default)]
pub(super) struct Pairs {
    before: Vec<Rc<Counts>>,
    after: Vec<Rc<Counts>>,
    contours: bool,
}

#[derive(Clone, Debug)]
struct Counts {
    all: ImageCounts,
    boundary: ImageCounts,
}

impl Counts {
    fn of(classes: usize, [truth, prediction]: [&Labels; 2], contours: bool) -> Result<Rc<Self>> {
        let mut confusion = Confusion::new(classes);
        confusion.add(truth, prediction)?;
        let width = band_width((truth.width, truth.height), BAND);
        let boundary = if contours { boundary_counts(truth, prediction, width) } else { ImageCounts::default() };
        Ok(Rc::new(Self { all: confusion.image_counts(), boundary }))
    }
}

/// A picture as it is: its truth and its prediction, counted once for all changes that leave the truth alone.
pub(super) struct Unchanged<'a> {
    classes: usize,
    truth: &'a Labels,
    prediction: &'a Labels,
    counts: Rc<Counts>,
}

impl<'a> Unchanged<'a> {
    pub(super) fn new(classes: usize, truth: &'a Labels, prediction: &'a Labels) -> Result<Self> {
        let counts = Counts::of(classes, [truth, prediction], true)?;
        Ok(Self { classes, truth, prediction, counts })
    }

    /// Its prediction, compared with `reference`.
    fn against(&self, reference: &Labels, contours: bool) -> Result<Rc<Counts>> {
        if reference == self.truth {
            return Ok(self.counts.clone());
        }
        Counts::of(self.classes, [reference, self.prediction], contours)
    }
}

impl Pairs {
    /// Nothing counted; with or without `contours`.
    pub(super) fn new(contours: bool) -> Self {
        Self { contours, ..Self::default() }
    }

    /// Counts an image that was changed: `reference` is what its prediction is compared with before, `after` are truth
    /// and prediction.
    pub(super) fn add(&mut self, image: &Unchanged, reference: &Labels, after: [&Labels; 2]) -> Result<()> {
        let before = image.against(reference, self.contours)?;
        let after = Counts::of(image.classes, after, self.contours)?;
        self.before.push(before);
        self.after.push(after);
        Ok(())
    }

    /// Counts an image as it is, without a change.
    pub(super) fn add_unchanged(&mut self, image: &Unchanged) {
        self.before.push(image.counts.clone());
        self.after.push(image.counts.clone());
    }

    /// The scores, with intervals over `draws` draws of the images.
    pub(super) fn effects(&self, name: &str, classes: &[String], draws: usize, seed: u64) -> Effects {
        let (miou, ious) = self.of(|counts| &counts.all, classes.len(), draws, seed);
        let boundary = self.contours.then(|| self.of(|counts| &counts.boundary, classes.len(), draws, seed));
        let (boundary_miou, mut boundary_ious) = match boundary {
            Some((miou, ious)) => (Some(miou), ious.into_iter()),
            None => (None, Vec::new().into_iter()),
        };
        let class = |(class, iou): (&String, Effect)| ClassEffect {
            class: class.clone(),
            iou,
            boundary_iou: boundary_ious.next(),
        };
        Effects {
            name: name.to_owned(),
            images: self.before.len(),
            miou,
            boundary_miou,
            classes: classes.iter().zip(ious).map(class).collect(),
        }
    }

    fn of(&self, part: fn(&Counts) -> &ImageCounts, classes: usize, draws: usize, seed: u64) -> (Effect, Vec<Effect>) {
        let list = |counts: &[Rc<Counts>]| counts.iter().map(|one| part(one).clone()).collect::<Vec<_>>();
        let (before, after) = (list(&self.before), list(&self.after));
        let drawn = differences(&before, &after, classes, draws, seed);
        let holds = |image: &ImageCounts, class: usize| {
            image.classes().iter().any(|(id, count)| usize::from(*id) == class && count.truth > 0)
        };
        let effect = |before, after, drawn: &[f64], images: usize| Effect {
            before,
            after,
            interval: percentile_interval(drawn, 0.95).filter(|_| images >= LEAST_IMAGES),
            images,
        };
        let ((mean_before, ious_before), (mean_after, ious_after)) =
            (true_ious(&before, classes), true_ious(&after, classes));
        let each = (0..classes).map(|class| {
            let images = before.iter().filter(|image| holds(image, class)).count();
            effect(ious_before[class], ious_after[class], &drawn.classes[class], images)
        });
        let each = each.collect();
        (effect(mean_before, mean_after, &drawn.miou, before.len()), each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ids: &[u8]) -> Labels {
        Labels { width: ids.len(), height: 1, ids: ids.to_vec() }
    }

    #[test]
    fn costs_are_paired() {
        let names = ["a", "b", "c"].map(String::from);
        let mut pairs = Pairs::new(true);
        let (truth, good, bad) =
            (labels(&[0, 0, 0, 1, 1, 1]), labels(&[0, 0, 0, 1, 1, 1]), labels(&[0, 0, 0, 0, 0, 0]));
        let image = Unchanged::new(3, &truth, &good).unwrap();
        for _ in 0..6 {
            pairs.add(&image, &truth, [&truth, &bad]).unwrap();
        }
        let found = pairs.effects("x", &names, 100, 1);
        assert_eq!((found.images, found.miou.before, found.miou.after), (6, Some(1.0), Some(0.25)));
        assert_eq!(found.miou.interval, Some([-0.75, -0.75]), "all images are alike");
        let b = &found.classes[1].iou;
        assert_eq!((b.change(), b.kept(), b.images), (Some(-1.0), Some(0.0), 6));
        assert!(b.costs(0.1) && !found.classes[2].iou.costs(0.0));
        assert_eq!((found.classes[2].iou.before, found.classes[2].iou.images), (None, 0));
        assert!(found.classes[0].boundary_iou.is_some());
        let without = Pairs::new(false).effects("y", &names, 100, 1);
        assert_eq!((without.images, without.boundary_miou, without.miou.interval), (0, None, None));
    }

    #[test]
    fn an_unchanged_picture_is_counted_once() {
        let (truth, prediction) = (labels(&[0, 0, 1, 1, 1, 1]), labels(&[0, 1, 1, 1, 1, 0]));
        let image = Unchanged::new(2, &truth, &prediction).unwrap();
        let (mut plain, mut inside, mut moved) = (Pairs::new(true), Pairs::new(false), Pairs::new(true));
        plain.add_unchanged(&image);
        // An equal map, as changes hand over.
        inside.add(&image, &truth.clone(), [&truth, &truth]).unwrap();
        moved.add(&image, &labels(&[255, 0, 1, 1, 1, 1]), [&truth, &truth]).unwrap();
        assert!(
            [&plain.before[0], &plain.after[0], &inside.before[0]].iter().all(|one| Rc::ptr_eq(one, &image.counts))
        );
        let names = ["a", "b"].map(String::from);
        let before = |pairs: &Pairs| pairs.effects("x", &names, 10, 1).miou.before.unwrap();
        // Of class 0 one of three, of class 1 three of five; then none of two.
        assert!((before(&inside) - (1.0 / 3.0 + 3.0 / 5.0) / 2.0).abs() < 1e-12);
        assert!((before(&moved) - (0.0 + 3.0 / 5.0) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn a_handful_of_images_has_no_interval() {
        let mut pairs = Pairs::new(false);
        let map = labels(&[0, 1]);
        let image = Unchanged::new(2, &map, &map).unwrap();
        (1..LEAST_IMAGES).for_each(|_| pairs.add(&image, &map, [&map, &map]).unwrap());
        let found = pairs.effects("x", &["a".into(), "b".into()], 100, 1);
        assert_eq!((found.miou.interval, found.miou.change()), (None, Some(0.0)));
    }
}
