//! A decoder's tokens changed: zeroed, averaged, permuted, swapped, shifted, drawn at random, or taken from another
//! model.
//!
//! Tokens are parameters, so a changed model is a copy with other values; nothing in the forward pass knows of it.

use std::collections::HashMap;

use burn::module::ParamId;
use burn::tensor::{Tensor, TensorData};

use crate::decoder::Prototypes;
use crate::error::{Error, Result};
use crate::layers::parameters;
use crate::model::Model;
use crate::rng::{Rng, fnv1a};

/// What is done to tokens, or to embeddings and queries where a decoder has these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// All values are 0.
    Zero,
    /// Each map is its mean, so that no place differs from another; of vectors, all are the mean over them.
    Mean,
    /// The places of maps in another order, the same in all of them.
    Permuted,
    /// Pairs of classes with each other's.
    Swapped,
    /// Maps moved right and down by this many cells, around the sides.
    Shifted(usize),
    /// Drawn at random, with the mean and the spread of each.
    Random,
    /// Those of another model.
    Other,
}

impl Edit {
    /// Its name in JSON.
    pub fn name(self) -> String {
        match self {
            Self::Zero => "zero".into(),
            Self::Mean => "mean".into(),
            Self::Permuted => "permuted".into(),
            Self::Swapped => "swapped".into(),
            Self::Shifted(cells) => format!("shifted-{cells}"),
            Self::Random => "random".into(),
            Self::Other => "other-seed".into(),
        }
    }

    /// All that `prototypes` allow.
    fn all(prototypes: &[Prototypes], other: bool) -> Vec<Self> {
        let maps = prototypes.iter().all(|one| one.grid.is_some());
        let classes = prototypes.iter().all(|one| one.of_classes);
        let least = prototypes.iter().filter_map(|one| one.grid).flatten().min().unwrap_or(0);
        let mut all = vec![Self::Zero, Self::Mean];
        if maps {
            all.push(Self::Permuted);
            all.extend([1, 2, 4, 8].into_iter().filter(|cells| 2 * cells <= least).map(Self::Shifted));
        }
        // A network answers the same whatever the order of its queries, so that exchanging them is not a test.
        if classes {
            all.push(Self::Swapped);
        }
        all.push(Self::Random);
        all.extend(other.then_some(Self::Other));
        all
    }

    /// The values of `of` after the edit, row by row as they were. `other` holds those of the other model.
    fn apply(self, values: &[f32], of: &Prototypes, other: &[f32], rng: &mut Rng) -> Vec<f32> {
        let length = values.len() / of.count.max(1);
        let row = |at: usize| &values[at * length..][..length];
        let mean = |row: &[f32]| row.iter().sum::<f32>() / row.len().max(1) as f32;
        match self {
            Self::Zero => vec![0.0; values.len()],
            Self::Mean if of.grid.is_some() => {
                (0..of.count).flat_map(|at| std::iter::repeat_n(mean(row(at)), length)).collect()
            }
            Self::Mean => {
                let mean = |i: usize| (0..of.count).map(|at| row(at)[i]).sum::<f32>() / of.count.max(1) as f32;
                let one: Vec<f32> = (0..length).map(mean).collect();
                one.repeat(of.count)
            }
            Self::Permuted => {
                let order = rng.permutation(length);
                (0..of.count).flat_map(|at| order.iter().map(move |from| row(at)[*from])).collect()
            }
            Self::Swapped => {
                let order = rng.permutation(of.count);
                let mut from: Vec<usize> = (0..of.count).collect();
                // The last of an odd number stays.
                order.as_chunks::<2>().0.iter().for_each(|[a, b]| from.swap(*a, *b));
                from.into_iter().flat_map(row).copied().collect()
            }
            Self::Shifted(cells) => {
                let [rows, columns] = of.grid.unwrap_or([1, length]);
                let from = |i: usize| {
                    let (y, x) = (i / columns, i % columns);
                    (y + rows - cells % rows) % rows * columns + (x + columns - cells % columns) % columns
                };
                (0..of.count).flat_map(|at| (0..length).map(move |i| row(at)[from(i)])).collect()
            }
            Self::Random => {
                let draw = |at: usize| {
                    let mean = mean(row(at));
                    let variance = row(at).iter().map(|v| (v - mean).powi(2)).sum::<f32>() / length.max(1) as f32;
                    (0..length).map(|_| mean + variance.sqrt() * rng.normal()).collect::<Vec<_>>()
                };
                (0..of.count).flat_map(draw).collect()
            }
            Self::Other => other.to_vec(),
        }
    }
}

/// The values of a model's tokens, in the order of its prototypes.
fn values(model: &Model, prototypes: &[Prototypes]) -> Vec<Vec<f32>> {
    let mut found = HashMap::new();
    parameters::visit(model, |parameter, values| {
        if prototypes.iter().any(|one| one.id == parameter.id) {
            found.insert(parameter.id, values.into_data().iter::<f32>().collect::<Vec<f32>>());
        }
    });
    prototypes.iter().map(|one| found.remove(&one.id).unwrap_or_default()).collect()
}

/// The model with other values for some of its parameters.
fn with(model: &Model, changed: &HashMap<ParamId, Vec<f32>>) -> Model {
    parameters::map(model.clone(), |parameter, old| match changed.get(&parameter.id) {
        Some(values) => {
            let shape = [values.len()];
            Tensor::from_data(TensorData::new(values.clone(), shape), &old.device())
        }
        None => old,
    })
}

/// The model with its tokens changed in every way that its decoder allows; those of `other` are one of them. Nothing of
/// a decoder without tokens.
///
/// # Errors
/// `other` has other tokens, or there are none to replace.
pub(super) fn variants(model: &Model, other: Option<&Model>, seed: u64) -> Result<Vec<(Edit, Model)>> {
    let prototypes = model.prototypes();
    if prototypes.is_empty() {
        return match other {
            None => Ok(Vec::new()),
            Some(_) => Err(Error::new("the model's decoder has no tokens that those of another model could replace")
                .with_hint("leave out --other-seed")),
        };
    }
    let own = values(model, &prototypes);
    let foreign = match other {
        None => vec![Vec::new(); own.len()],
        Some(other) => {
            let theirs = other.prototypes();
            let kind =
                |of: &[Prototypes]| of.iter().map(|one| (one.count, one.grid, one.of_classes)).collect::<Vec<_>>();
            let found = values(other, &theirs);
            if kind(&theirs) != kind(&prototypes) || found.iter().map(Vec::len).ne(own.iter().map(Vec::len)) {
                return Err(Error::new("the other model has other tokens")
                    .with_hint("pass a model of the same recipe that was trained from another seed"));
            }
            found
        }
    };
    let variant = |edit: Edit| {
        let mut rng = Rng::new(seed, &[fnv1a(edit.name().as_bytes())]);
        let parts = prototypes.iter().zip(own.iter().zip(&foreign));
        let changed = parts.map(|(one, (own, foreign))| (one.id, edit.apply(own, one, foreign, &mut rng))).collect();
        (edit, with(model, &changed))
    };
    Ok(Edit::all(&prototypes, other.is_some()).into_iter().map(variant).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::Config;
    use burn::tensor::Device;

    pub(crate) fn model(decoder: &str, seed: u64) -> Model {
        let backbone = match decoder {
            "eomt" => "type = \"vit\"\nembed_dim = 16\ndepth = 3\nnum_heads = 2\npatch_size = 4\nimg_size = [32, 32]",
            _ => "type = \"unet\"\nchannels = [8, 16]\ndepths = [1, 1]\nimg_size = [32, 32]",
        };
        let small = match decoder {
            "structtoken" => "num_blocks = 2\nmlp_ratio = 1",
            "segmenter" => "num_layers = 1",
            "knet" => {
                "num_stages = 2\nnum_convs = 1\nchannels = 8\nfeat_channels = 8\nnum_heads = 2\nfeedforward_channels = 8"
            }
            "maskformer" => {
                "num_queries = 4\nconv_dim = 32\nmask_dim = 8\nhidden_dim = 12\nnum_heads = 3\ndim_feedforward = 8\n\
                 dec_layers = 3"
            }
            "mask2former" => {
                "num_queries = 4\nhidden_dim = 32\nmask_dim = 8\nnum_heads = 4\nenc_layers = 1\nenc_dim_feedforward = 8\n\
                 dec_layers = 3\ndim_feedforward = 8"
            }
            "eomt" => "num_queries = 4\nnum_blocks = 1",
            _ => "channels = 8\nauxiliary_weight = 0.0",
        };
        let decoder = format!("type = {decoder:?}\n{small}");
        let text = format!("[model.backbone]\n{backbone}\n[model.decoder]\n{decoder}");
        Config::parse(&text, "r.toml", &[]).unwrap().model.init(3, seed, &Device::flex())
    }

    fn maps() -> (Vec<f32>, Prototypes) {
        let id = ParamId::new();
        ((0..24).map(|i| i as f32).collect(), Prototypes { id, count: 2, grid: Some([3, 4]), of_classes: true })
    }

    #[test]
    fn edits_do_what_they_say() {
        let (own, of) = maps();
        let apply = |edit: Edit, values: &[f32]| edit.apply(values, &of, &[7.0; 24], &mut Rng::new(1, &[]));
        assert_eq!(apply(Edit::Zero, &own), [0.0; 24]);
        let mean = apply(Edit::Mean, &own);
        assert!(mean[..12].iter().all(|v| *v == 5.5) && mean[12..].iter().all(|v| *v == 17.5));
        let permuted = apply(Edit::Permuted, &own);
        assert!((0..12).all(|i| permuted[i] + 12.0 == permuted[12 + i]), "one order for all");
        let mut sorted = permuted[..12].to_vec();
        sorted.sort_by(f32::total_cmp);
        assert_eq!(sorted, own[..12]);
        let swapped = apply(Edit::Swapped, &own);
        assert_eq!((&swapped[..12], &swapped[12..]), (&own[12..], &own[..12]));
        assert_eq!(apply(Edit::Swapped, &swapped), own, "swapped twice is as it was");
        let shifted = apply(Edit::Shifted(1), &own);
        assert_eq!((shifted[5], shifted[0], shifted[12 + 5]), (own[0], own[11], own[12]));
        assert_eq!(apply(Edit::Shifted(12), &own), own, "around both sides");
        assert_eq!(apply(Edit::Other, &own), [7.0; 24]);
        let random = apply(Edit::Random, &own);
        assert!((random[..12].iter().sum::<f32>() / 12.0 - 5.5).abs() < 3.0 && random != own);
        let vectors = Prototypes { grid: None, ..of.clone() };
        let mean = Edit::Mean.apply(&own, &vectors, &[], &mut Rng::new(1, &[]));
        assert!((0..12).all(|i| mean[i] == own[i] + 6.0 && mean[i] == mean[12 + i]));
    }

    /// Every decoder's tokens are found, and only they change.
    #[test]
    fn only_tokens_change() {
        for decoder in ["structtoken", "segmenter", "knet", "maskformer", "mask2former", "eomt"] {
            let model = model(decoder, 0);
            let prototypes = model.prototypes();
            let (_, zeroed) = variants(&model, None, 1).unwrap().swap_remove(0);
            let all = |model: &Model| {
                let mut found = Vec::new();
                parameters::visit(model, |parameter, values| {
                    found.push((parameter.id, values.into_data().iter::<f32>().collect::<Vec<f32>>()));
                });
                found
            };
            assert!(!prototypes.is_empty());
            for ((id, before), (same, after)) in all(&model).into_iter().zip(all(&zeroed)) {
                assert_eq!(id, same);
                match prototypes.iter().find(|one| one.id == id) {
                    Some(one) => {
                        assert!(before.len() % one.count == 0 && after.iter().all(|v| *v == 0.0), "{decoder}");
                        assert!(one.grid.is_none_or(|[rows, columns]| rows * columns * one.count == before.len()));
                    }
                    None => assert_eq!(before, after, "{decoder}"),
                }
            }
        }
        assert!(variants(&model("fcn", 0), None, 1).unwrap().is_empty());
    }

    #[test]
    fn tokens_of_another_model_have_to_fit() {
        let (own, other) = (model("structtoken", 0), model("structtoken", 1));
        let all = variants(&own, Some(&other), 1).unwrap();
        let (edit, changed) = all.last().unwrap();
        assert_eq!(*edit, Edit::Other);
        assert_eq!(values(changed, &changed.prototypes()), values(&other, &other.prototypes()));
        let error = variants(&own, Some(&model("segmenter", 1)), 1).unwrap_err();
        assert!(error.hint().is_some());
        assert!(variants(&model("fcn", 0), Some(&other), 1).unwrap_err().to_string().contains("no tokens"));
    }
}
