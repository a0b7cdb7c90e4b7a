//! ONNX files: every decoder on every backbone is the same model there, and what is not is caught with its layer.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData, activation};
use rten::{Model as Onnx, Value, ValueOrView};
use structtoken::backbone::BackboneConfig;
use structtoken::config::Config;
use structtoken::dataset::Classes;
use structtoken::decoder::{DecoderConfig, Prior};
use structtoken::export::{ExportOptions, Exported, Pictures, Precision, Profile, export, read_card, verify};
use structtoken::image::Image;
use structtoken::infer::{Network, Padding, whole_logits};
use structtoken::layers::parameters;
use structtoken::model::{Model, ModelConfig};
use structtoken::model_file::ModelCard;
use structtoken::rng::Rng;

use crate::cli::{Lab, TINY};
use crate::every_decoder::{backbone, convolutional, decoder, dinov3};

const DECODERS: [&str; 9] = ["cse", "sse", "pwe", "fcn", "segmenter", "knet", "maskformer", "mask2former", "eomt"];
const BACKBONES: [&str; 7] = ["vit", "dinov3", "unet", "unet-resnet", "unet-convnext", "resnet", "convnext"];

/// A small model with weights that are nowhere 0 or 1.
struct Case {
    name: String,
    model: Model,
    card: ModelCard,
    size: [usize; 2],
}

impl Case {
    /// None for decoders that a backbone cannot carry.
    fn new(at: usize, on: usize, seed: u64) -> Option<Self> {
        let mut rng = Rng::new(41 + seed, &[at as u64, on as u64]);
        let rng = &mut rng;
        let mut vit = backbone(rng);
        let backbone = match on {
            0 => BackboneConfig::Vit(vit.clone()),
            1 => BackboneConfig::Dinov3(dinov3(&vit, rng)),
            _ if DECODERS[at] == "eomt" => return None,
            _ => convolutional(on - 2, rng),
        };
        if on > 1 {
            vit.out_indices = vec![0; backbone.features().strides.len()];
        }
        let decoder = decoder(at, &vit, rng);
        Some(Self::of(format!("{}_{}", DECODERS[at], BACKBONES[on]), set!(ModelConfig { backbone, decoder }), rng))
    }

    fn of(name: String, config: ModelConfig, rng: &mut Rng) -> Self {
        config.check().unwrap();
        let classes = 2 + rng.below(5);
        let model = config.init(classes, 1, &Device::flex());
        let model = parameters::map(model, |parameter, values| {
            let n = values.dims()[0];
            let noise: Vec<f32> = (0..n).map(|_| rng.normal() * 0.1).collect();
            let changed = values + Tensor::<1>::from_data(TensorData::new(noise, [n]), &Device::flex());
            if parameter.name.ends_with("running_var") { changed.abs() } else { changed }
        });
        let names = (0..classes).map(|class| format!("class \"{class}\"")).collect();
        let classes = Classes { names, colors: vec![[9; 3]; classes] };
        let recipe = set!(Config { model: config, ..Config::parse(TINY, "tiny", &[]).unwrap() });
        let card = ModelCard::new(&recipe, &classes).unwrap();
        // Neither square nor a power of 2.
        let stride = model.padded(1);
        let cells = 24usize.div_ceil(stride);
        let size = [stride * (cells | 1), stride * (cells + 2)];
        Self { name, model, card, size }
    }

    fn options(&self, profile: Profile, precision: Precision) -> ExportOptions {
        ExportOptions { size: self.size, profile, precision }
    }

    fn export(&self, profile: Profile, precision: Precision) -> structtoken::Result<Exported> {
        export(&self.model, &self.card, &self.options(profile, precision), &pictures(self.size, 3))
    }

    /// What the model itself says of images: the values that a file of this profile gives.
    fn own(&self, images: &[Image], profile: Profile) -> (Tensor<4>, Vec<f32>) {
        let [h, w] = self.size;
        let pixels = images.iter().flat_map(|image| image.pixels.iter().copied()).collect();
        let tensor = self.card.data.preprocess.batch_to_tensor(pixels, [images.len(), h, w], &Device::flex());
        let scores = whole_logits(&self.model, tensor.clone(), Padding::Exact);
        let votes = self.model.predict_logits(tensor.clone()).votes.is_some();
        let given = match profile {
            Profile::Qgis if votes => scores.clone() / scores.sum_dim(1),
            Profile::Qgis => activation::softmax(scores, 1),
            Profile::Logits | Profile::Hf => scores,
            _ => {
                let labels = scores.argmax(1).float();
                return (tensor, labels.into_data().iter::<f32>().collect());
            }
        };
        (tensor, given.into_data().iter::<f32>().collect())
    }
}

fn images([height, width]: [usize; 2], count: usize) -> Vec<Image> {
    let mut rng = Rng::new(3, &[]);
    let smooth = |rng: &mut Rng| {
        let waves: Vec<[f32; 3]> =
            (0..9).map(|_| [rng.uniform() * 0.4, rng.uniform() * 0.4, rng.uniform() * 6.0]).collect();
        let value = |x: usize, y: usize, channel: usize| {
            let sum: f32 =
                waves[channel * 3..][..3].iter().map(|[a, b, c]| (a * x as f32 + b * y as f32 + c).sin()).sum();
            ((sum / 3.0 + 1.0) * 127.0) as u8
        };
        let pixels = (0..height * width * 3).map(|at| value(at / 3 % width, at / 3 / width, at % 3)).collect();
        Image { width, height, pixels }
    };
    (0..count).map(|_| smooth(&mut rng)).collect()
}

fn pictures(size: [usize; 2], count: usize) -> Pictures {
    Pictures::generated(images(size, count), size)
}

/// Where files are put for other runtimes to look at, if they are wanted.
fn kept() -> Option<PathBuf> {
    std::env::var_os("STRUCTTOKEN_EXPORT_FOLDER").map(PathBuf::from)
}

fn npy(path: &Path, bytes: &[u8], shape: &[usize], kind: &str) {
    let sides: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({},), }}", sides.join(", "));
    header.extend(std::iter::repeat_n(' ', 63 - (10 + header.len()) % 64));
    header.push('\n');
    let length = (header.len() as u16).to_le_bytes();
    std::fs::write(path, [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), bytes].concat()).unwrap();
}

/// Runs the file on one image and on three, and puts it where it is wanted.
fn holds_at_other_batches(case: &Case, exported: &Exported, profile: Profile) {
    let onnx = Onnx::load(exported.bytes.clone()).unwrap();
    let [h, w] = case.size;
    for count in [1, 3] {
        let images = images(case.size, count);
        let (tensor, own) = case.own(&images, profile);
        let bytes: Vec<u8> = images.iter().flat_map(|image| image.pixels.clone()).collect();
        let floats: Vec<f32> = tensor.into_data().iter::<f32>().collect();
        let input = match profile.takes_bytes() {
            true => Value::from_shape([count, h, w, 3], bytes.clone()).unwrap(),
            false => Value::from_shape([count, 3, h, w], floats.clone()).unwrap(),
        };
        let output = onnx.run_one(ValueOrView::Value(input), None).unwrap();
        let given: Vec<f32> = match output {
            Value::UInt8Tensor(tensor) => tensor.into_data().into_iter().map(f32::from).collect(),
            Value::FloatTensor(tensor) => tensor.into_data(),
            other => panic!("{}: {other:?}", case.name),
        };
        assert_eq!(given.len(), own.len(), "{} {profile:?}", case.name);
        if profile.output() == "labels" {
            let other = given.iter().zip(&own).filter(|(a, b)| a != b).count();
            assert!(other * 1000 <= own.len(), "{} {profile:?}: {other} of {} labels", case.name, own.len());
        } else {
            let largest = own.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            let worst = given.iter().zip(&own).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
            assert!(worst <= 1e-3 * largest, "{} {profile:?}: {worst} of {largest}", case.name);
        }
        if let (Some(folder), 3) = (kept(), count) {
            std::fs::create_dir_all(&folder).unwrap();
            let path = |end: &str| folder.join(format!("{}-{}{end}", case.name, profile.name()));
            std::fs::write(path(".onnx"), &exported.bytes).unwrap();
            match profile.takes_bytes() {
                true => npy(&path(".input.npy"), &bytes, &[count, h, w, 3], "|u1"),
                false => npy(&path(".input.npy"), bytemuck::cast_slice(&floats), &[count, 3, h, w], "<f4"),
            }
            match profile.output() {
                "labels" => {
                    let labels: Vec<u8> = own.iter().map(|label| *label as u8).collect();
                    npy(&path(".output.npy"), &labels, &[count, h, w], "|u1");
                }
                _ => {
                    let classes = case.model.classes();
                    npy(&path(".output.npy"), bytemuck::cast_slice(&own), &[count, classes, h, w], "<f4");
                }
            }
        }
    }
}

#[test]
fn every_decoder_on_every_backbone_is_the_same_model() {
    let mut wrong = Vec::new();
    for on in 0..BACKBONES.len() {
        for at in 0..DECODERS.len() {
            let Some(case) = Case::new(at, on, 0) else { continue };
            for profile in [Profile::Default, Profile::Logits] {
                match case.export(profile, Precision::F32) {
                    Ok(exported) => holds_at_other_batches(&case, &exported, profile),
                    Err(error) => wrong.push(format!("{}: {error}", case.name)),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_profile_gives_what_it_says() {
    for at in [2, 6] {
        let case = Case::new(at, 0, 1).unwrap();
        for profile in Profile::ALL.into_iter().filter(|profile| *profile != Profile::Web) {
            let exported = case.export(profile, Precision::F32).unwrap();
            holds_at_other_batches(&case, &exported, profile);
            let card = read_card(&exported.bytes).unwrap();
            assert_eq!((card.size, card.profile, card.agreement), (case.size, profile, exported.agreement.clone()));
            assert_eq!(card.classes, case.card.classes.names);
            let has = |key: &[u8]| exported.bytes.windows(key.len()).any(|bytes| bytes == key);
            assert_eq!(has(b"tile_size") && has(b"seg_thresh") && has(b"Segmentor"), profile == Profile::Qgis);
            let again = verify(exported.bytes, &case.model, &case.card, &pictures(case.size, 3)).unwrap();
            assert_eq!(again, exported.agreement);
        }
    }
}

#[test]
fn pages_get_what_the_network_says_on_its_grid() {
    for at in [2, 6] {
        let case = Case::new(at, 0, 1).unwrap();
        let exported = case.export(Profile::Web, Precision::F32).unwrap();
        let onnx = Onnx::load(exported.bytes.clone()).unwrap();
        for count in [1, 3] {
            let images = images(case.size, count);
            let bytes: Vec<u8> = images.iter().flat_map(|image| image.pixels.clone()).collect();
            let input = Value::from_shape([count, case.size[0], case.size[1], 3], bytes).unwrap();
            let given = onnx.run(vec![(onnx.input_ids()[0], ValueOrView::Value(input))], onnx.output_ids(), None);
            let said = case.model.predict_logits(case.own(&images, Profile::Web).0);
            let mut own = vec![said.maps.into_data()];
            own.extend(said.votes.map(Tensor::into_data));
            let given = given.unwrap();
            assert_eq!((given.len(), own.len() == 2), (own.len(), at == 6));
            for (given, own) in given.into_iter().zip(own) {
                let Value::FloatTensor(given) = given else { panic!("floats") };
                let own: Vec<f32> = own.iter::<f32>().collect();
                let largest = own.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
                let given = given.into_data();
                assert_eq!(given.len(), own.len());
                assert!(given.iter().zip(&own).all(|(a, b)| (a - b).abs() <= 1e-3 * largest), "{}", case.name);
            }
        }
        let again = verify(exported.bytes, &case.model, &case.card, &pictures(case.size, 3)).unwrap();
        assert_eq!(again, exported.agreement);
        // The weights of another model are noticed here too.
        let other =
            Case::new(at, 0, 1).map(|case| changed(&case, "backbone.norm.bias", |values| values + 3.0)).unwrap();
        let file = case.export(Profile::Web, Precision::F32).unwrap().bytes;
        let error = verify(file, &other.model, &other.card, &pictures(case.size, 3)).unwrap_err();
        assert!(error.to_string().contains("is not the same model"), "{error}");
    }
}

/// A per-pixel classifier whose classes are far apart, as those of a trained one.
fn decided() -> Case {
    let case = Case::new(3, 0, 1).unwrap();
    let mut names = parameters::list(&case.model).into_iter().map(|(name, ..)| name);
    let name = names.find(|name| name.ends_with("conv_seg.bias") && !name.contains("auxiliary")).unwrap();
    changed(&case, &name, |values| {
        let n = values.dims()[0];
        let offsets: Vec<f32> = (0..n).map(|class| class as f32 * 2.0).collect();
        values + Tensor::<1>::from_data(TensorData::new(offsets, [n]), &Device::flex())
    })
}

#[test]
fn weights_of_half_precision_are_half_as_large() {
    let case = decided();
    let [whole, half] =
        [Precision::F32, Precision::F16].map(|precision| case.export(Profile::Default, precision).unwrap());
    assert!(half.bytes.len() < whole.bytes.len() * 4 / 5, "{} and {}", half.bytes.len(), whole.bytes.len());
    assert!(half.agreement.largest_difference > whole.agreement.largest_difference);
    holds_at_other_batches(&Case { name: format!("{}_f16", case.name), ..case }, &half, Profile::Default);
}

/// The model with one of its parameters changed.
fn changed(case: &Case, name: &str, change: impl Fn(Tensor<1>) -> Tensor<1>) -> Case {
    let mut found = false;
    let model = parameters::map(case.model.clone(), |parameter, values| {
        let is = parameter.name == name;
        found |= is;
        if is { change(values) } else { values }
    });
    assert!(found, "no parameter `{name}`");
    Case { model, card: case.card.clone(), name: case.name.clone(), size: case.size }
}

#[test]
fn weights_beyond_half_precision_are_caught_with_their_layer() {
    let name = "backbone.blocks.0.mlp.fc1.weight";
    // Few values are not halved.
    let has_many = |case: &Case| {
        let list = parameters::list(&case.model);
        list.iter().any(|(known, shape, _)| known == name && shape.iter().product::<usize>() >= 256)
    };
    let case = (1..).filter_map(|seed| Case::new(2, 0, seed)).find(has_many).unwrap();
    let case = changed(&case, name, |values| values * 1e6);
    let exported = case.export(Profile::Default, Precision::F32).unwrap();
    holds_at_other_batches(
        &Case { name: "overflow".to_owned(), ..changed(&case, name, |values| values) },
        &exported,
        Profile::Default,
    );
    let error = case.export(Profile::Default, Precision::F16).err().expect("an overflow is noticed");
    assert!(error.to_string().contains("`backbone.blocks.0.mlp.fc1` parts first"), "{error}");
    assert!(error.hint().unwrap().contains("--precision f32"));
}

#[test]
fn weights_of_eight_bits_are_smaller_still() {
    let case = decided();
    let [whole, small, dynamic] = [Precision::F32, Precision::Int8, Precision::Int8Dynamic]
        .map(|precision| case.export(Profile::Default, precision).unwrap());
    let computes_in_whole_numbers = |exported: &Exported| exported.bytes.windows(13).any(|at| at == b"MatMulInteger");
    assert!(!computes_in_whole_numbers(&small) && computes_in_whole_numbers(&dynamic));
    for (precision, exported) in [(Precision::Int8, small), (Precision::Int8Dynamic, dynamic)] {
        let bytes = exported.bytes.clone();
        assert!(bytes.len() < whole.bytes.len() * 4 / 5, "{} and {}", bytes.len(), whole.bytes.len());
        assert!(exported.agreement.largest_difference > whole.agreement.largest_difference);
        assert_eq!(read_card(&bytes).unwrap().precision, precision);
        assert_eq!(precision.name().parse::<Precision>().unwrap(), precision);
        let again = verify(bytes, &case.model, &case.card, &pictures(case.size, 3)).unwrap();
        assert_eq!(again, exported.agreement);
        let case = decided();
        let name = format!("{}_{}", case.name, precision.name().replace('-', "_"));
        holds_at_other_batches(&Case { name, ..case }, &exported, Profile::Default);
    }
}

/// One operation for each convolution within groups, of which StructToken's feed-forward networks have one each.
#[test]
fn convolutions_within_groups_are_one_operation() {
    for at in 0..3 {
        let case = Case::new(at, 0, 1).unwrap();
        let exported = case.export(Profile::Logits, Precision::F32).unwrap();
        let text = String::from_utf8_lossy(&exported.bytes).into_owned();
        let list = parameters::list(&case.model);
        let layers = list.iter().filter_map(|(name, ..)| name.strip_suffix("dwconv.weight"));
        let mut found = 0;
        for layer in layers {
            found += 1;
            let start = format!("{layer}dwconv/Conv_");
            let nodes = text
                .split(start.as_str())
                .skip(1)
                .filter(|rest| rest.trim_start_matches(|letter: char| letter.is_ascii_digit()).starts_with(".node"));
            assert_eq!(nodes.count(), 1, "{} {layer}", case.name);
        }
        assert!(found > 0, "{}", case.name);
    }
}

/// Weights that count for nothing, as what they are multiplied with is 0, but beside which the others of their channel
/// vanish.
#[test]
fn weights_beyond_eight_bits_are_caught_with_their_layer() {
    let name = "backbone.patch_embed.proj.weight";
    let shape = |case: &Case| {
        let list = parameters::list(&case.model);
        list.into_iter().find_map(|(known, shape, _)| (known == name).then_some(shape)).unwrap()
    };
    // Few values are not made smaller.
    let has_many = |case: &Case| shape(case).iter().product::<usize>() >= 1024;
    let mut case = (1..).filter_map(|seed| Case::new(2, 0, seed)).find(has_many).unwrap();
    let patch: usize = shape(&case)[2..].iter().product();
    case = changed(&case, name, |values| {
        let mut all: Vec<f32> = values.into_data().iter::<f32>().collect();
        all.chunks_exact_mut(patch).step_by(3).for_each(|red| red.fill(1e4));
        Tensor::<1>::from_data(TensorData::new(all.clone(), [all.len()]), &Device::flex())
    });
    case.card.data.preprocess.mean[0] = 100.0;
    let mut images = images(case.size, 3);
    images.iter_mut().for_each(|image| image.pixels.iter_mut().step_by(3).for_each(|red| *red = 100));
    let export = |precision| {
        let pictures = Pictures::generated(images.clone(), case.size);
        export(&case.model, &case.card, &case.options(Profile::Default, precision), &pictures)
    };
    export(Precision::F32).unwrap();
    for (precision, instead) in [(Precision::Int8, "--precision f16"), (Precision::Int8Dynamic, "--precision int8")] {
        let error = export(precision).err().expect("lost weights are noticed");
        assert!(error.to_string().contains("`backbone.patch_embed.proj` parts first"), "{error}");
        assert!(error.hint().unwrap().ends_with(instead));
    }
}

/// The file with some bytes in the place of others.
fn replaced(file: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut file = file.to_vec();
    let places: Vec<usize> = (0..file.len() - from.len()).filter(|at| file[*at..].starts_with(from)).collect();
    assert!(!places.is_empty(), "nothing to replace");
    for at in places {
        file[at..at + to.len()].copy_from_slice(to);
    }
    file
}

fn caught(case: &Case, file: Vec<u8>, place: &str) {
    let error = verify(file, &case.model, &case.card, &pictures(case.size, 3)).expect_err("another model is noticed");
    assert!(error.to_string().contains("is not the same model") && error.to_string().contains(place), "{error}");
}

#[test]
fn broken_graphs_are_caught_with_their_layer() {
    // One that resizes nothing but its scores.
    let resizes_once = |case: &Case| match &case.card.model.decoder {
        DecoderConfig::StructToken(tokens) => tokens.prior == Prior::None,
        _ => false,
    };
    let case = (1..).filter_map(|seed| Case::new(2, 0, seed)).find(resizes_once).unwrap();
    let exported = case.export(Profile::Default, Precision::F32).unwrap();
    caught(&case, replaced(&exported.bytes, b"half_pixel", b"asymmetric"), "in the resize to the images' size");
    let floats = |values: [f32; 3]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
    let [r, g, b] = case.card.data.preprocess.mean;
    caught(&case, replaced(&exported.bytes, &floats([r, g, b]), &floats([b, g, r])), "`preprocess` parts first");
    // A resize within the network, of a decoder that has one.
    let pyramid = Case::new(6, 5, 0).unwrap();
    let exported = pyramid.export(Profile::Logits, Precision::F32).unwrap();
    let error = verify(
        replaced(&exported.bytes, b"half_pixel", b"asymmetric"),
        &pyramid.model,
        &pyramid.card,
        &pictures(pyramid.size, 3),
    );
    assert!(error.unwrap_err().to_string().contains("is not the same model"));
    // The weights of one layer.
    let name = "backbone.blocks.0.attn.proj.bias";
    let other = changed(&case, name, |values| {
        // Norms do not see what all channels have in common.
        let n = values.dims()[0];
        let offsets: Vec<f32> = (0..n).map(|channel| [0.9, -0.4, 0.1][channel % 3]).collect();
        values + Tensor::<1>::from_data(TensorData::new(offsets, [n]), &Device::flex())
    });
    caught(
        &other,
        case.export(Profile::Default, Precision::F32).unwrap().bytes,
        "`backbone.blocks.0.attn.proj` parts first",
    );
}

/// Other programs go by what a file declares, whatever it computes.
#[test]
fn files_that_declare_something_else_are_not_the_same() {
    let case = Case::new(2, 0, 1).unwrap();
    let refused = |profile: Profile, change: &dyn Fn(Vec<u8>) -> Vec<u8>, say: &str| {
        let file = change(case.export(profile, Precision::F32).unwrap().bytes);
        let error = verify(file, &case.model, &case.card, &pictures(case.size, 1)).expect_err(say).to_string();
        assert!(error.contains(say), "{error}");
    };
    let appended = |bytes: &'static [u8]| move |file: Vec<u8>| [file, bytes.to_vec()].concat();
    // Another version of the operators, and one of others' operators beside it.
    refused(Profile::Default, &appended(&[0x42, 2, 0x10, 99]), "version 99 of ONNX's operators instead of version 17");
    let others = appended(&[0x42, 6, 0x0a, 2, b'a', b'b', 0x10, 3]);
    let file = others(case.export(Profile::Default, Precision::F32).unwrap().bytes);
    verify(file, &case.model, &case.card, &pictures(case.size, 1)).unwrap();
    // A graph continued: one more output, and a constant of another type.
    let name = b"one more";
    let output = [&[0x3a, 12, 0x62, 10, 0x0a, 8][..], name].concat();
    refused(Profile::Default, &move |file| [file, output.clone()].concat(), "it gives `labels` uint8");
    let exported = case.export(Profile::Default, Precision::F32).unwrap().bytes;
    let halved = |name: &str| {
        let tensor = [&[0x10, 10, 0x42, name.len() as u8][..], name.as_bytes()].concat();
        let graph = [&[0x2a, tensor.len() as u8][..], &tensor[..]].concat();
        let file = [&exported[..], &[0x3a, graph.len() as u8], &graph].concat();
        verify(file, &case.model, &case.card, &pictures(case.size, 1)).unwrap_err().to_string()
    };
    // Not all parameters are in the file as they are.
    let mut names = parameters::list(&case.model).into_iter().map(|(name, ..)| name);
    assert!(names.any(|name| halved(&name).contains(&format!("`{name}` is of float16 instead of float"))));
    // Metadata, by which others name the classes and normalise.
    refused(Profile::Default, &|file| replaced(&file, b"semantic", b"sematnic"), "under `task`");
    refused(Profile::Qgis, &|file| replaced(&file, b"tiles_overlap", b"tiles_ovrelap"), "under `tiles_overlap`");
}

#[test]
fn sizes_that_would_be_padded_are_refused_with_one_that_fits() {
    let case = Case::new(2, 0, 1).unwrap();
    let size = [case.size[0] + 1, case.size[1]];
    let options = ExportOptions { size, ..case.options(Profile::Default, Precision::F32) };
    let error = export(&case.model, &case.card, &options, &pictures(size, 1)).err().unwrap();
    assert!(error.to_string().contains("multiples of"), "{error}");
    let words = error.hint().unwrap().split_once("--size ").unwrap().1.split_once('x').unwrap();
    let size = [words.0.parse().unwrap(), words.1.parse().unwrap()];
    export(&case.model, &case.card, &ExportOptions { size, ..options }, &pictures(size, 1)).unwrap();
}

/// A folder with a model that was trained for a moment.
fn trained() -> Lab {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    let few = ["--set", "train.iterations=2", "--set", "train.eval_every=0"];
    lab.ok(&[&["train", "tiny.toml", "--device", "cpu", "--out", "run"][..], &few].concat());
    lab
}

const MODEL: &str = "run/model.safetensors";

#[test]
fn a_model_is_exported_and_verified() {
    let lab = trained();
    let told = lab.ok(&["export", MODEL, "-o", "out/model.onnx"]);
    assert!(told.contains("32 x 32") && told.contains("of the labels the same") && told.contains("mIoU"), "{told}");
    let json = lab.ok(&["export", MODEL, "--verify", "out/model.onnx", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((found[0]["agreement"]["images"].as_u64(), &found[0]["size"]), (Some(6), &serde_json::json!([32, 32])));
    assert!(lab.ok(&["export", MODEL, "--verify", "out/model.onnx"]).contains("6 images"));
    lab.ok(&["export", MODEL, "-o", "m.onnx", "--size", "32x48", "--size", "64x32", "--images", "2"]);
    assert!(lab.path("m_32x48.onnx").is_file() && lab.path("m_64x32.onnx").is_file() && !lab.path("m.onnx").exists());
    lab.ok(&["export", MODEL, "-o", "hub", "--profile", "hf", "--images", "2"]);
    let text = |name: &str| std::fs::read_to_string(lab.path(name)).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text("hub/config.json")).unwrap();
    assert_eq!(config["id2label"]["0"], config["structtoken"]["classes"]["names"][0]);
    let preprocessor: serde_json::Value = serde_json::from_str(&text("hub/preprocessor_config.json")).unwrap();
    assert_eq!(preprocessor["size"]["height"], 32);
    assert_eq!(std::fs::read(lab.path("hub/model.safetensors")).unwrap(), std::fs::read(lab.path(MODEL)).unwrap());
    assert!(
        text("hub/README.md").contains("ORTModelForSemanticSegmentation") && lab.path("hub/onnx/model.onnx").is_file()
    );
    lab.ok(&["export", MODEL, "-o", "repository/shapes", "--profile", "triton", "--images", "2"]);
    assert!(
        text("repository/shapes/config.pbtxt").contains("name: \"shapes\"")
            && lab.path("repository/shapes/1/model.onnx").is_file()
    );
}

#[test]
fn what_is_there_is_not_lost() {
    let lab = trained();
    let model = std::fs::read(lab.path(MODEL)).unwrap();
    lab.write("m_48x48.safetensors", &model);
    let several = ["export", "m_48x48.safetensors", "-o", "m.safetensors", "--size", "48x48", "--size", "32x32"];
    lab.refused(&several, &["would replace `m_48x48.safetensors`", "hint: "]);
    assert!(std::fs::read(lab.path("m_48x48.safetensors")).unwrap() == model);
    lab.write("notes.txt", "mine");
    lab.refused(&["export", MODEL, "-o", "notes.txt"], &["`notes.txt` is there already", "hint: "]);
    // Of several files none is written where one cannot be.
    std::fs::create_dir(lab.path("y_48x48.onnx")).unwrap();
    let several = ["export", MODEL, "-o", "y.onnx", "--size", "32x32", "--size", "48x48", "--images", "1"];
    lab.refused(&several, &["`y_48x48.onnx` is a folder", "hint: "]);
    assert!(!lab.path("y_32x32.onnx").exists());
    let told = lab.refused(&["export", MODEL, "-o", "new/"], &["`new/` is a folder", "--profile hf or triton"]);
    let named = told.split("--out ").nth(1).and_then(|rest| rest.split(';').next()).unwrap();
    lab.ok(&["export", MODEL, "--out", named, "--images", "1"]);
    assert!(lab.path("new/model.onnx").is_file());
    lab.ok(&["export", MODEL, "-o", "hub/", "--profile", "hf", "--images", "1"]);
    lab.refused(&["export", MODEL, "-o", ".", "--profile", "hf"], &["`.` has no name of its own", "hint: "]);
    #[cfg(unix)]
    {
        std::fs::create_dir(lab.path("empty")).unwrap();
        std::os::unix::fs::symlink("empty", lab.path("link")).unwrap();
        lab.refused(&["export", MODEL, "-o", "link", "--profile", "hf"], &["`link` is a link", "hint: "]);
    }
}

#[test]
fn sizes_beyond_the_memory_are_refused_before_any_work() {
    let lab = trained();
    let huge = ["export", MODEL, "-o", "a.onnx", "--images", "100000", "--size"];
    let with = |size: &'static str| [&huge[..], &[size]].concat();
    lab.refused(&with("16384x16384"), &["100000 images of 16384 x 16384 needs about", "--size HxW"]);
    lab.refused(&with("100000x100000"), &["cannot be exported", "to 16384"]);
    lab.ok(&["export", MODEL, "-o", "a.onnx", "--images", "1", "--size", "32x32"]);
    let runtime = ["export", MODEL, "-o", "b.onnx", "--images", "1", "--runtime", "x"];
    lab.misused(&runtime, &["--runtime goes with --web", "leave --runtime out"]);
    lab.ok(&runtime[..runtime.len() - 2]);
}

#[test]
fn what_cannot_be_exported_is_refused_and_nothing_is_left() {
    let lab = trained();
    let before = lab.entries();
    lab.misused(&["export", "tiny.toml", "-o", "a.onnx"], &["is a recipe", "model file that training wrote"]);
    lab.refused(&["export", MODEL, "-o", "a.onnx", "--size", "30x32"], &["multiples of 8", "--size 32x32"]);
    lab.refused(&["export", MODEL, "-o", "a.onnx", "--size", "0x32"], &["cannot be exported"]);
    let tile = ["--profile", "qgis", "--size", "32x48"];
    lab.refused(&[&["export", MODEL, "-o", "a.onnx"][..], &tile].concat(), &["square tiles", "--size 32x32"]);
    lab.refused(&["export", MODEL, "-o", MODEL], &["would replace `run/model.safetensors`"]);
    lab.refused(&["export", MODEL, "-o", "tiny.toml/a.onnx"], &["cannot write"]);
    lab.refused(&["export", MODEL, "-o", "run", "--profile", "hf"], &["is there already"]);
    lab.misused(&["export", MODEL, "-o", "a", "--profile", "hf", "--size", "32x32", "--size", "64x64"], &["one size"]);
    lab.refused(&["export", MODEL, "-o", "a.onnx", "--data", "nowhere"], &["is not a dataset"]);
    for (arguments, say) in [
        (["--size", "32"], "height and width"),
        (["--size", "-48x48"], "height and width"),
        (["--profile", "tflite"], "qgis"),
    ] {
        let output = lab.run(&[&["export", MODEL, "-o", "a.onnx"][..], &arguments].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(say));
    }
    assert_eq!(lab.entries(), before);
}

const PARTS: [&str; 3] = ["ort-wasm-simd-threaded", "ort-wasm-simd-threaded.asyncify", "ort"];

/// A folder that looks like the npm package which runs models in browsers.
fn package(lab: &Lab, name: &str, version: &str) {
    lab.write(
        &format!("{name}/package.json"),
        format!("{{\"name\": \"onnxruntime-web\", \"version\": \"{version}\"}}"),
    );
    for part in &PARTS[..2] {
        lab.write(&format!("{name}/dist/{part}.mjs"), "export default 1;");
        lab.write(&format!("{name}/dist/{part}.wasm"), b"\0asm\x01\0\0\0 and so on");
    }
    for entry in ["wasm", "webgpu"] {
        lab.write(&format!("{name}/dist/{}.{entry}.min.mjs", PARTS[2]), "export {};");
    }
}

#[test]
fn a_page_is_written_whole_or_not_at_all() {
    let lab = trained();
    let web = ["export", MODEL, "--images", "2", "--web", "page"];
    package(&lab, "old", "1.20.1");
    package(&lab, "other", "1.0.0");
    lab.write("other/package.json", "{\"name\": \"left-pad\", \"version\": \"1.0.0\"}");
    lab.write("full/kept.txt", "mine");
    let before = lab.entries();
    let told = lab.refused(&web, &["needs onnxruntime-web", "--runtime package"]);
    let version = told.split("npm pack onnxruntime-web@").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let refused = |runtime: &str, say: &[&str]| lab.refused(&[&web[..], &["--runtime", runtime]].concat(), say);
    refused("nowhere", &["`package.json` cannot be read", "npm pack"]);
    refused("other", &["another package", "npm pack"]);
    refused("old", &["is onnxruntime-web 1.20.1", "npm pack"]);
    assert_eq!(lab.entries(), before);
    package(&lab, "package", &version);
    package(&lab, "damaged", &version);
    lab.write("damaged/dist/ort-wasm-simd-threaded.wasm", "<html>404</html>");
    package(&lab, "partial", &version);
    std::fs::remove_file(lab.path("partial/dist/ort.wasm.min.mjs")).unwrap();
    let before = lab.entries();
    refused("damaged", &["ort-wasm-simd-threaded.wasm` is damaged", "npm pack"]);
    refused("partial", &["cannot read", "ort.wasm.min.mjs"]);
    let words = |folder: &'static str, more: &[&'static str]| {
        [&["export", MODEL, "--images", "2", "--web", folder, "--runtime", "package"][..], more].concat()
    };
    let into = |folder, more: &[&'static str], say: &[&str]| lab.refused(&words(folder, more), say);
    into("full", &[], &["is there already", "new or empty"]);
    into("tiny.toml/page", &[], &["cannot write"]);
    into("page", &["--size", "30x32"], &["multiples of 8", "--size 32x32"]);
    lab.misused(&words("page", &["--size", "32x32", "--size", "64x64"]), &["one size"]);
    for more in [["-o", "a.onnx"], ["--profile", "hf"], ["--verify", "a.onnx"]] {
        let words = ["export", MODEL, "--web", "page", "--runtime", "package"];
        assert_eq!(lab.run(&[&words[..], &more].concat()).status.code(), Some(2), "{more:?}");
    }
    assert_eq!(lab.entries(), before);
    lab.ok(&[&web[..], &["--runtime", "package", "--precision", "f32"]].concat());
    let bytes = |name: &str| std::fs::read(lab.path(&format!("page/{name}"))).unwrap();
    let told: serde_json::Value = serde_json::from_slice(&bytes("model.json")).unwrap();
    assert_eq!((told["name"].as_str(), told["bytes"].as_u64()), (Some("run"), Some(bytes("model.onnx").len() as u64)));
    assert_eq!(
        (&told["settings"]["crop"], &told["settings"]["scales"]),
        (&serde_json::json!([32, 32]), &serde_json::json!([1.0]))
    );
    assert_eq!(bytes("ort/ort.wasm.min.mjs"), b"export {};");
    assert!(String::from_utf8(bytes("ort/LICENSE.txt")).unwrap().contains("Microsoft"));
    assert!(String::from_utf8(bytes("LICENSE.txt")).unwrap().contains("MIT License"));
    assert!(String::from_utf8(bytes("_headers")).unwrap().contains("Cross-Origin-Embedder-Policy: require-corp"));
    assert!(String::from_utf8(bytes("index.html")).unwrap().contains("Content-Security-Policy"));
    let golden = structtoken::image::read_image(lab.path("page/golden.png")).unwrap();
    assert_eq!((golden.width, golden.height), (32, 32));
    lab.ok(&["export", MODEL, "--verify", "page/model.onnx", "--images", "2"]);
}

#[test]
fn damaged_files_are_not_verified() {
    let lab = trained();
    lab.ok(&["export", MODEL, "-o", "a.onnx", "--images", "2"]);
    let file = std::fs::read(lab.path("a.onnx")).unwrap();
    let verify = |bytes: &[u8], say: &[&str]| {
        lab.write("b.onnx", bytes);
        lab.refused(&["export", MODEL, "--verify", "b.onnx", "--images", "2"], say);
    };
    verify(&file[..file.len() / 2], &["b.onnx"]);
    verify(b"", &["holds no graph"]);
    verify(b"not a model", &["b.onnx"]);
    verify(&std::fs::read(lab.path(MODEL)).unwrap(), &["b.onnx"]);
    lab.refused(&["export", MODEL, "--verify", "none.onnx"], &["none.onnx"]);
    let metadata = file.windows(11).rposition(|bytes| bytes == b"structtoken").unwrap();
    let mut other = file.clone();
    other[metadata] = b'S';
    verify(&other, &["has no `structtoken`", "that `structtoken export` wrote"]);
    // Any single byte: never a panic, and never agreement with what is another model.
    for at in (0..file.len()).step_by(file.len() / 60) {
        let mut other = file.clone();
        other[at] ^= 0x40;
        lab.write("b.onnx", other);
        let output = lab.run(&["export", MODEL, "--verify", "b.onnx", "--images", "1"]);
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(!talk.contains("panicked") && matches!(output.status.code(), Some(0 | 1)), "byte {at}: {talk}");
    }
}

/// The decoders of the list above are those that there are.
#[test]
fn the_list_names_the_decoders() {
    let mut rng = Rng::new(1, &[]);
    let vit = backbone(&mut rng);
    let names = (0..9).map(|kind| match decoder(kind, &vit, &mut rng) {
        DecoderConfig::StructToken(config) => format!("{:?}", config.block).to_lowercase(),
        DecoderConfig::Fcn(_) => "fcn".into(),
        DecoderConfig::Segmenter(_) => "segmenter".into(),
        DecoderConfig::Knet(_) => "knet".into(),
        DecoderConfig::MaskFormer(_) => "maskformer".into(),
        DecoderConfig::Mask2Former(_) => "mask2former".into(),
        DecoderConfig::Eomt(_) => "eomt".to_owned(),
        other => panic!("{other:?} is new"),
    });
    assert_eq!(names.collect::<Vec<_>>(), DECODERS);
}
