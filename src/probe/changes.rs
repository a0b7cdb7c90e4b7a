//! One cue after the other taken away: which function does which change.

use super::cues::{Changed, Cue, CueSource};
use super::{geometry, surface};
use crate::dataset::Sample;
use crate::image::Image;

/// Changes a picture; `None` where it has nothing that could be changed so.
pub(super) fn change(cue: Cue, source: &CueSource, seed: u64) -> Option<Changed> {
    let CueSource { sample, regions, .. } = source;
    let Sample { image, labels } = sample;
    let mut rng = cue.rng(seed, source.index);
    let in_place = |image: Image| Some(Changed::in_place(image, labels));
    match cue {
        Cue::TextureSame => surface::textured(source, false, &mut rng),
        Cue::TextureOther => surface::textured(source, true, &mut rng),
        Cue::Flat => in_place(surface::flat(image, regions)),
        Cue::Silhouettes => in_place(surface::silhouettes(image, regions, &mut rng)),
        Cue::Edges => in_place(surface::edges(image, labels)),
        Cue::Gray => in_place(surface::gray(image)),
        Cue::Channels => in_place(surface::channels(image, &mut rng)),
        Cue::Hue => in_place(surface::hue(image, rng.range(60.0, 300.0))),
        Cue::Blur => in_place(surface::blurred(image)),
        Cue::Shuffle(side) => surface::shuffled(sample, regions, side.into(), &mut rng),
        Cue::ContextMean => geometry::alone(sample, regions, false, &mut rng),
        Cue::ContextNoise => geometry::alone(sample, regions, true, &mut rng),
        Cue::Occluded => geometry::occluded(sample, regions, &mut rng),
        Cue::Scaled | Cue::Rotated | Cue::Shifted => geometry::moved(cue, sample, regions, &mut rng),
        Cue::Rolled => Some(geometry::rolled(sample, &mut rng)),
        Cue::Blank => in_place(surface::blank(image)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::dataset::shapes::Shapes;
    use crate::dataset::{Dataset, Split};
    use crate::probe::regions::Regions;
    use crate::probe::textures::Textures;

    /// Pictures with their regions and textures.
    pub(crate) fn with(size: usize, run: impl Fn(&CueSource)) {
        let set = Shapes::new(3, Split::Val, 8, size);
        let samples: Vec<Sample> = (0..set.len()).map(|index| set.get(index).unwrap()).collect();
        let mut textures = Textures::new(6);
        samples.iter().enumerate().for_each(|(index, sample)| textures.add(index, sample));
        for (index, sample) in samples.iter().enumerate() {
            let regions = Regions::of(&sample.labels);
            run(&CueSource { index, sample, regions: &regions, textures: &textures });
        }
    }

    #[test]
    fn every_change_has_a_name_and_is_reproducible() {
        let names: std::collections::BTreeSet<_> = Cue::ALL.iter().map(|cue| cue.name()).collect();
        assert_eq!(names.len(), Cue::ALL.len());
        with(64, |source| {
            for cue in Cue::ALL {
                let (a, b, other) = (change(cue, source, 1), change(cue, source, 1), change(cue, source, 3));
                assert_eq!(a, b, "{cue:?}");
                let Some(Changed { image, truth, reference, .. }) = a else { continue };
                assert_eq!((image.width, image.height, image.pixels.len()), (64, 64, 64 * 64 * 3));
                for labels in [&truth, &reference] {
                    assert_eq!((labels.width, labels.height, labels.ids.len()), (64, 64, 64 * 64), "{cue:?}");
                }
                assert_ne!(image, source.sample.image, "{cue:?} changes something");
                let drawn = matches!(cue, Cue::TextureOther | Cue::ContextNoise | Cue::Rolled | Cue::Hue);
                assert!(!drawn || other.is_none_or(|other| other.image != image), "{cue:?} hangs on the seed");
            }
        });
    }

    /// Changes of the surface leave every label where it is.
    #[test]
    fn surfaces_keep_labels() {
        with(48, |source| {
            for cue in [Cue::TextureOther, Cue::Flat, Cue::Silhouettes, Cue::Edges, Cue::Blank, Cue::Hue] {
                let changed = change(cue, source, 1).unwrap();
                assert_eq!(
                    (&changed.truth, &changed.reference),
                    (&source.sample.labels, &source.sample.labels),
                    "{cue:?}"
                );
            }
        });
    }
}
