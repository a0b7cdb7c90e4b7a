use super::*;
use crate::image::Image;
use crate::infer::Inference;
use crate::rng::Rng;

/// Every decoder, small.
const DECODERS: [&str; 11] = [
    "type = \"structtoken\"\nblock = \"pwe\"\nnum_blocks = 2",
    "type = \"structtoken\"\nblock = \"sse\"\nnum_blocks = 1",
    "type = \"structtoken\"\nblock = \"cse\"\nnum_blocks = 2",
    "type = \"fcn\"\nnum_convs = 0\nauxiliary_weight = 0.0",
    "type = \"fcn\"\nnum_convs = 1\nchannels = 8",
    "type = \"segmenter\"\nnum_layers = 1",
    "type = \"knet\"\nnum_stages = 1\nchannels = 16\nfeat_channels = 16\nnum_heads = 2\nfeedforward_channels = 16",
    "type = \"maskformer\"\nnum_queries = 5\ndec_layers = 1\nconv_dim = 32\nmask_dim = 32\nhidden_dim = 32\nnum_heads = 2\ndim_feedforward = 16",
    "type = \"mask2former\"\nnum_queries = 5\nenc_layers = 1\ndec_layers = 1\nhidden_dim = 32\nmask_dim = 32\nnum_heads = 2\ndim_feedforward = 16\nenc_dim_feedforward = 16",
    "type = \"eomt\"\nnum_queries = 5\nnum_blocks = 1",
    "type = \"structtoken\"\nnum_blocks = 1\nprior = \"linear\"\nupscale_factor = 3",
];

fn config(decoder: &str) -> Config {
    let text = format!(
        "[model.backbone]\ntype = \"vit\"\nembed_dim = 16\ndepth = 2\nnum_heads = 2\npatch_size = 4\nimg_size = [16, 16]\n\
         [model.decoder]\n{decoder}\n[data]\n[data.augment]\nresize = \"none\"\n[eval]\nmode = \"whole\"\n"
    );
    Config::parse(&text, "r.toml", &[]).unwrap()
}

fn classes(names: &[&str]) -> Classes {
    Classes { names: names.iter().map(|name| (*name).to_owned()).collect(), colors: vec![[0; 3]; names.len()] }
}

/// A model whose weights are far from where any begin, as a file of it would be read; and its card.
fn trained(config: &Config, names: &[&str]) -> (Model, StateDict, ModelCard) {
    let mut rng = Rng::new(5, &[]);
    let model = config.model.init(names.len(), 1, &Device::flex());
    let model = parameters::map(model, |parameter, value| {
        let len = parameter.shape.iter().product::<usize>();
        let noise: Vec<f32> = (0..len).map(|_| rng.range(-0.3, 0.3)).collect();
        value + burn::tensor::Tensor::from_data(burn::tensor::TensorData::new(noise, [len]), &Device::flex())
    });
    let mut state = weights::state_of(&model);
    state.metadata = ModelCard::new(config, &classes(names)).unwrap().metadata().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    weights::save(&path, &model, &state.metadata).unwrap();
    (model, weights::read(&path).unwrap(), model_file::read_card(&path).unwrap())
}

fn fine_tune(config: &Config, state: &StateDict, card: &ModelCard, names: &[&str]) -> (Model, String) {
    let fresh = config.model.init(names.len(), 9, &Device::flex());
    load(fresh, state.clone(), card, &classes(names), (config, Path::new("m.safetensors"))).unwrap()
}

/// Probabilities `[k, 16 * 16]` of some image.
fn probabilities(model: &Model, config: &Config) -> Vec<Vec<f32>> {
    let mut rng = Rng::new(3, &[]);
    let pixels = (0..16 * 16 * 3).map(|_| (rng.next_u64() % 256) as u8).collect();
    let image = Image { width: 16, height: 16, pixels };
    let inference = Inference {
        network: model,
        preprocess: &config.data.preprocess,
        config: &config.eval,
        device: &Device::flex(),
    };
    inference.probabilities(&image).unwrap().chunks(256).map(<[f32]>::to_vec).collect()
}

fn apart(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn decoders() -> Vec<Config> {
    DECODERS.iter().map(|decoder| config(decoder)).collect()
}

#[test]
fn classes_in_another_order_are_the_same_model() {
    for config in decoders() {
        let (model, state, card) = trained(&config, &["a", "b", "c", "d"]);
        let (moved, message) = fine_tune(&config, &state, &card, &["c", "a", "d", "b"]);
        assert!(message.contains("classes kept: c, a, d, b; new: none; dropped: none"), "{message}");
        let (before, after) = (probabilities(&model, &config), probabilities(&moved, &config));
        for (new, old) in [2, 0, 3, 1].into_iter().enumerate() {
            assert!(
                apart(&after[new], &before[old]) < 1e-4,
                "{:?}: {}",
                config.model.decoder,
                apart(&after[new], &before[old])
            );
        }
        assert!(apart(&before[0], &before[1]) > 1e-3, "{:?}: no class is like another", config.model.decoder);
        // The same classes are the same bytes.
        let (same, _) = fine_tune(&config, &state, &card, &["a", "b", "c", "d"]);
        assert!(weights::state_of(&same).tensors == state.tensors);
    }
}

#[test]
fn a_class_more_and_a_class_less() {
    for config in decoders() {
        let (_, state, card) = trained(&config, &["a", "b", "c"]);
        let fresh = weights::state_of(&config.model.init(3, 0, &Device::flex())).tensors;
        let (moved, message) = fine_tune(&config, &state, &card, &["new", "c", "a"]);
        assert!(message.contains("classes kept: c, a; new: new; dropped: b"), "{message}");
        let moved = weights::state_of(&moved).tensors;
        for (name, axes) in axes(&config.model) {
            let (old, new) = (&state.tensors[&name], &moved[&name]);
            let belongs: Vec<usize> = (0..axes.len()).filter(|at| axes[*at].each > 0).collect();
            match belongs[..] {
                [] => assert!(old == new, "{name} is of no class"),
                [axis] => {
                    // Along the one axis: elements of the new class are fresh, of a kept one old, and all others as
                    // they were.
                    let inner: usize = old.shape[axis + 1..].iter().product();
                    let Axis { each, rest } = axes[axis];
                    let (long, wide) = (3 * each + rest, inner);
                    for (at, value) in new.data.iter().enumerate() {
                        let (outer, index, within) = (at / (long * wide), at / wide % long, at % wide);
                        let of = |index: usize| (outer * long + index) * wide + within;
                        let expected = match index / each {
                            0 => fresh[&name].data[at],
                            1 => old.data[of(index + each)],
                            2 => old.data[of(index - 2 * each)],
                            _ => old.data[at],
                        };
                        assert_eq!(*value, expected, "{name} at {index}");
                    }
                }
                _ => assert!(old.shape == new.shape && old != new && &fresh[&name] != new, "{name}"),
            }
        }
        // Fewer and more.
        for names in [&["b"][..], &["x", "b", "y", "a", "z"]] {
            let (moved, _) = fine_tune(&config, &state, &card, names);
            assert_eq!(moved.classes(), names.len());
            assert!(probabilities(&moved, &config).iter().flatten().all(|value| value.is_finite()));
        }
    }
}

#[test]
fn another_network_is_refused_with_a_hint() {
    let of = config(DECODERS[0]);
    let (_, state, card) = trained(&of, &["a", "b"]);
    let other = config(DECODERS[3]);
    let refused = |config: &Config| {
        let fresh = config.model.init(2, 9, &Device::flex());
        let path = Path::new("m.safetensors");
        load(fresh, state.clone(), &card, &classes(&["b", "a"]), (config, path)).unwrap_err()
    };
    let error = refused(&other);
    assert!(error.to_string().contains("decoder `structtoken`, and the recipe's is `fcn`"), "{error}");
    assert!(error.hint().unwrap().contains("--from m.safetensors"));
    let deeper = config("type = \"structtoken\"\nblock = \"pwe\"\nnum_blocks = 3");
    let error = refused(&deeper);
    assert!(error.to_string().contains("is not the recipe's") && error.hint().unwrap().contains("--from"), "{error}");
    // A card that says more than the file holds.
    let claims = ModelCard { model: deeper.model.clone(), ..card.clone() };
    let fresh = deeper.model.init(2, 9, &Device::flex());
    let error =
        load(fresh, state.clone(), &claims, &classes(&["b", "a"]), (&deeper, Path::new("m.safetensors"))).unwrap_err();
    assert!(error.to_string().contains("not there"), "{error}");
}

#[test]
fn tables_of_another_grid_are_resized_for_all_classes() {
    let small = config(DECODERS[0]);
    let (_, state, card) = trained(&small, &["a", "b", "c"]);
    let larger = ["model.backbone.img_size=[32, 24]".to_owned()];
    let large = Config::parse(&small.to_toml().unwrap(), "r.toml", &larger).unwrap();
    let (moved, message) = fine_tune(&large, &state, &card, &["c", "x", "a", "b"]);
    assert!(message.contains("resized"), "{message}");
    assert_eq!(weights::state_of(&moved).tensors["decoder.kernels"].shape, [1, 4, 8, 6]);
}
