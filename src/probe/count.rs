//! The loop over images: every change made, predicted and counted.

use std::ops::ControlFlow;

use super::changes::change;
use super::cues::{Changed, Cue, CueSource};
use super::effects::{Pairs, Unchanged};
use super::place::FailureCounts;
use super::regions::Regions;
use super::stages::{StageCounts, Stages};
use super::textures::Textures;
use super::tokens::{Edit, variants};
use super::verdict::{Known, ShapeBias};
use super::{ExampleImage, Finding, Pictures, ProbeOptions, Subject, TokenFindings};
use crate::dataset::{Dataset, Sample};
use crate::error::{Error, Result};
use crate::image::{IGNORE, Image, Labels};
use crate::infer::{Inference, memory};
use crate::model::Model;
use crate::report::run::has_tokens;

/// Images shown with all their changes.
const SHOWN: usize = 2;

/// Counts of everything.
struct Counts<'a> {
    names: &'a [String],
    cues: Vec<(Cue, Pairs)>,
    edits: Vec<(Edit, Model, Pairs)>,
    stages: StageCounts,
    places: FailureCounts,
    plain: Pairs,
    /// Regions labelled by shape, by texture, as neither.
    conflicts: Vec<[usize; 3]>,
    /// Pixels of each class.
    pixels: Vec<u64>,
}

/// Steps that are done, and all there are.
struct Steps<'a> {
    done: usize,
    all: usize,
    tell: &'a mut dyn FnMut(usize, usize) -> ControlFlow<()>,
}

impl Steps<'_> {
    /// One more; whether to continue.
    fn next(&mut self) -> ControlFlow<()> {
        self.done += 1;
        (self.tell)(self.done, self.all)
    }
}

pub(super) fn run(
    subject: &Subject,
    dataset: &dyn Dataset,
    indices: &[usize],
    options: &ProbeOptions,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Option<(Finding, Pictures)>> {
    let names = &dataset.classes().names;
    let edits = match subject.model {
        Some(model) => variants(model, subject.other, options.seed)?,
        None => Vec::new(),
    };
    let per_image = 1 + options.cues.len() + edits.len() + usize::from(!edits.is_empty());
    let mut steps = Steps { done: 0, all: indices.len() * (1 + per_image), tell: progress };
    let Some((textures, shown)) = look(dataset, indices, &mut steps)? else { return Ok(None) };
    let mut counts = Counts {
        names,
        cues: options.cues.iter().map(|cue| (*cue, Pairs::new(cue.has_contours()))).collect(),
        edits: edits.into_iter().map(|(edit, model)| (edit, model, Pairs::new(true))).collect(),
        stages: StageCounts::new(names.len()),
        places: FailureCounts::new(names.len()),
        plain: Pairs::new(true),
        conflicts: vec![[0; 3]; names.len()],
        pixels: vec![0; names.len()],
    };
    let mut pictures = Pictures::default();
    for index in indices {
        let sample = dataset.get(*index)?;
        let at = |error| Error::new(format!("cannot probe with `{}`", dataset.name(*index))).with_source(error);
        let mut seen = shown.contains(index).then(Vec::new);
        let done =
            counts.image(subject, *index, &sample, &textures, options.seed, &mut seen, &mut pictures, &mut steps);
        let Some(prediction) = done.map_err(at)? else { return Ok(None) };
        if let Some(changed) = seen {
            let plain = (sample.image, sample.labels, prediction);
            pictures.images.push(ExampleImage { name: dataset.name(*index), plain, changed });
        }
    }
    Ok(Some((counts.finding(subject, indices.len(), options), pictures)))
}

/// The textures of all images, and which images to show: those of the most classes.
fn look(dataset: &dyn Dataset, indices: &[usize], steps: &mut Steps) -> Result<Option<(Textures, Vec<usize>)>> {
    let mut textures = Textures::new(dataset.classes().len());
    let mut rich: Vec<(usize, usize)> = Vec::new();
    for index in indices {
        let sample = dataset.get(*index)?;
        textures.add(*index, &sample);
        let mut held = [false; 256];
        sample.labels.ids.iter().for_each(|id| held[usize::from(*id)] = true);
        rich.push((held[..usize::from(IGNORE)].iter().filter(|held| **held).count(), *index));
        if steps.next().is_break() {
            return Ok(None);
        }
    }
    rich.sort_by_key(|(held, index)| (std::cmp::Reverse(*held), *index));
    Ok(Some((textures, rich.into_iter().take(SHOWN).map(|(_, index)| index).collect())))
}

type Seen = Option<Vec<(Cue, (Image, Labels, Labels))>>;

impl Counts<'_> {
    /// Counts one image; its prediction, or none where that was broken off.
    #[expect(clippy::too_many_arguments, reason = "called from one place")]
    fn image(
        &mut self,
        subject: &Subject,
        index: usize,
        sample: &Sample,
        textures: &Textures,
        seed: u64,
        seen: &mut Seen,
        pictures: &mut Pictures,
        steps: &mut Steps,
    ) -> Result<Option<Labels>> {
        let (inference, classes) = (&subject.inference, self.names.len());
        let Sample { image, labels: truth } = sample;
        memory::ensure_judged(inference, (image.height, image.width))?;
        let prediction = inference.labels(image)?;
        let unchanged = Unchanged::new(classes, truth, &prediction)?;
        self.plain.add_unchanged(&unchanged);
        let regions = Regions::of(truth);
        self.places.add(truth, &regions, &prediction);
        truth.ids.iter().filter(|id| **id != IGNORE).for_each(|id| self.pixels[usize::from(*id)] += 1);
        if steps.next().is_break() {
            return Ok(None);
        }
        let source = CueSource { index, sample, regions: &regions, textures };
        for (cue, pairs) in &mut self.cues {
            if let Some(changed) = change(*cue, &source, seed) {
                let Changed { image, truth, reference, conflicts } = changed;
                let found = inference.labels(&image)?;
                pairs.add(&unchanged, &reference, [&truth, &found])?;
                count_conflicts(&mut self.conflicts, &regions, &conflicts, &prediction, &found);
                if let Some(seen) = seen {
                    seen.push((*cue, (image, truth, found)));
                }
            }
            if steps.next().is_break() {
                return Ok(None);
            }
        }
        for (_, model, pairs) in &mut self.edits {
            let found = Inference { network: &*model, ..*inference }.labels(image)?;
            pairs.add(&unchanged, truth, [truth, &found])?;
            if steps.next().is_break() {
                return Ok(None);
            }
        }
        if let Some(model) = subject.model.filter(|_| !self.edits.is_empty()) {
            let found = Stages::of(model, inference, image)?;
            self.stages.add(truth, &found.labels((image.height, image.width)));
            if pictures.priors.is_none() && has_tokens(model) {
                pictures.priors = found.maps.into_iter().next();
            }
            if steps.next().is_break() {
                return Ok(None);
            }
        }
        Ok(Some(prediction))
    }

    fn finding(self, subject: &Subject, images: usize, options: &ProbeOptions) -> Finding {
        let (names, seed, draws) = (self.names, options.seed, options.draws);
        let plain = self.plain.effects("plain", names, 1, seed);
        let all: u64 = self.pixels.iter().sum();
        let measured: Vec<_> =
            self.cues.iter().map(|(cue, pairs)| (*cue, pairs.effects(cue.name(), names, draws, seed))).collect();
        let (cues, none): (Vec<_>, Vec<_>) = measured.into_iter().partition(|(_, effects)| effects.images > 0);
        let bias = |(name, counts): (&String, &[usize; 3])| ShapeBias::new(name.clone(), *counts);
        let shape_bias: Vec<ShapeBias> = names.iter().zip(&self.conflicts).map(bias).collect();
        let place = self.places.scores();
        let known = |number: usize| Known {
            class: &names[number],
            number,
            share: self.pixels[number] as f64 / all.max(1) as f64,
            iou: plain.classes[number].iou.before,
            images: plain.classes[number].iou.images,
            bias: &shape_bias[number],
            cues: &cues,
            place: &place,
        };
        let prototypes = subject.model.map(Model::prototypes).unwrap_or_default();
        let tokens = prototypes.first().filter(|_| !self.edits.is_empty()).map(|of| TokenFindings {
            count: of.count,
            grid: of.grid,
            of_classes: of.of_classes,
            edits: self.edits.iter().map(|(edit, _, pairs)| pairs.effects(&edit.name(), names, draws, seed)).collect(),
            stages: self.stages.scores(),
            constant_agreement: self.stages.constant(),
        });
        Finding {
            images,
            seed,
            classes: names.to_vec(),
            miou: plain.miou.before,
            boundary_miou: plain.boundary_miou.as_ref().and_then(|effect| effect.before),
            verdicts: (0..names.len()).map(|number| known(number).verdict()).collect(),
            cues: cues.iter().map(|(_, effects)| effects.clone()).collect(),
            not_measured: none.into_iter().map(|(cue, _)| cue).collect(),
            shape_bias,
            tokens,
            place,
        }
    }
}

/// How regions are labelled that have another class's texture; of those that were found before.
fn count_conflicts(
    counts: &mut [[usize; 3]],
    regions: &Regions,
    conflicts: &[Option<u8>],
    before: &Labels,
    after: &Labels,
) {
    for (region, texture) in regions.all.iter().zip(conflicts) {
        let Some(texture) = texture.filter(|_| regions.counts(region)) else { continue };
        let most = |labels: &Labels| {
            let mut votes = [0usize; 256];
            region.pixels.iter().for_each(|at| votes[usize::from(labels.ids[*at])] += 1);
            (0..=255u8).max_by_key(|id| (votes[usize::from(*id)], std::cmp::Reverse(*id)))
        };
        if most(before) != Some(region.class) {
            continue;
        }
        let which = match most(after) {
            Some(id) if id == region.class => 0,
            Some(id) if id == texture => 1,
            _ => 2,
        };
        counts[usize::from(region.class)][which] += 1;
    }
}
