//! What can only be shown on real files, which are not in the repository: photos, and weights that others trained.
//!
//! These tests are ignored, and fail where they are run without the files: `cargo test --release --test it real_files::
//! -- --ignored`, with the folder of the files in `STRUCTTOKEN_SHARED` if it is not `../shared`.

use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use structtoken::backbone::{BackboneConfig, VitConfig};
use structtoken::dataset::spec::DatasetSpec;
use structtoken::dataset::{Dataset, Split};
use structtoken::layers::ForwardContext;
use structtoken::model::ModelConfig;
use structtoken::tools::check::check;
use structtoken::weights::{self, KeyFormat};

use crate::golden::{Golden, allowed, reference, test_device};

/// A real file or folder of files. Panics if it is not there.
fn real(name: &str) -> PathBuf {
    let folder = std::env::var_os("STRUCTTOKEN_SHARED").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"));
    let path = folder.join(name);
    assert!(path.exists(), "this test needs `{}`, which is not there", path.display());
    path
}

const SETS: [(&str, &str, [usize; 2]); 2] = [("camvid", "data/camvid", [367, 101]), ("ccp14", "data/ccp", [402, 100])];

#[test]
#[ignore = "needs the photos of CamVid and CCP"]
fn datasets_have_no_fault() {
    for (name, folder, pairs) in SETS {
        let report = check(&DatasetSpec::find(name).unwrap(), Some(&real(folder)), &|_, _| ()).unwrap();
        assert!(report.ok, "{}", report.text());
        assert_eq!(report.splits.iter().map(|split| split.pairs).collect::<Vec<_>>(), pairs);
    }
}

#[test]
#[ignore = "needs the photos of CamVid and CCP"]
fn datasets_map_cleanly() {
    for (name, folder, pairs) in SETS {
        let root = real(folder);
        for (split, count) in [Split::Train, Split::Val].into_iter().zip(pairs) {
            let set = DatasetSpec::find(name).unwrap().open(split, Some(&root)).unwrap();
            assert_eq!(set.len(), count);
            let classes = set.classes().len();
            let mut pixels = vec![0u64; 256];
            for index in 0..set.len() {
                let sample = set.get(index).unwrap();
                assert_eq!(sample.image.pixels.len(), sample.labels.ids.len() * 3);
                sample.labels.ids.iter().for_each(|id| pixels[usize::from(*id)] += 1);
            }
            assert!(pixels[..classes].iter().all(|n| *n > 0), "{name} {split}: every class occurs");
            assert!(pixels[classes..255].iter().all(|n| *n == 0));
        }
    }
}

/// DINOv2 ViT-S/14 from its timm names, at two sizes other than the table's.
#[test]
#[ignore = "needs the weights of DINOv2 ViT-S/14"]
fn dinov2() {
    let device = test_device();
    let golden = Golden::read(&reference("dinov2/dinov2_vits14_golden.safetensors"));
    let state = weights::read(&real("weights/dinov2_vits14.f16.safetensors")).unwrap();
    assert_eq!(
        (weights::remap_keys(&state).unwrap().key_format, state.dtypes["norm.weight"]),
        (KeyFormat::Timm, "f16")
    );
    let vit = set!(VitConfig {
        patch_size: 14,
        img_size: [518, 518],
        init_values: Some(1.0),
        final_norm: true,
        drop_path_rate: 0.0
    });
    let config = set!(ModelConfig { backbone: BackboneConfig::Vit(vit) });
    let options = weights::LoadOptions::pretrained_backbone();
    let (model, report) = weights::load(config.blank(2, &device), &state, &options).unwrap();
    assert!(report.resized.is_empty() && report.loaded.iter().all(|name| name.starts_with("backbone.")), "{report}");
    for (tag, height, width) in [("sq", 224, 224), ("wide", 140, 252)] {
        let mut pixels = Vec::with_capacity(3 * height * width);
        for c in 0..3 {
            for y in 0..height {
                for x in 0..width {
                    let value = (0.05 * (c + 1) as f64 * x as f64).sin() + (0.03 * (c + 1) as f64 * y as f64).cos();
                    pixels.push(value as f32);
                }
            }
        }
        let context = ForwardContext::eval().traced();
        let image = Tensor::<4>::from_data(TensorData::new(pixels, [1, 3, height, width]), &device);
        model.forward(image, &context);
        let mut compared = 0;
        for (name, data) in context.into_trace() {
            let values = data.try_to_vec::<f32>().unwrap();
            if let Some(block) = name.strip_prefix("vit.layer").filter(|rest| ["2", "5", "8", "11"].contains(rest)) {
                // The file holds an eighth of the tokens: the first ones, whatever its note says of every eighth.
                let name = format!("{tag}.block{block}");
                golden.check(&name, &values[..golden.get(&name).values.len()], 2e-5);
                compared += 1;
            } else if name == "feat" {
                // Which lacks the class token. It does not hold the largest value.
                let mut tokens = golden.get(&format!("{tag}.tokens")).clone();
                tokens.values.drain(..384);
                let difference = tokens.difference(&values);
                assert!(f64::from(difference) < allowed(2e-5), "{tag}: {difference:e}");
                compared += 1;
            }
        }
        assert_eq!(compared, 5, "{tag}");
    }
}
