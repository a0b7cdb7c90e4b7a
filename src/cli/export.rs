//! `structtoken export`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::burn::tensor::Device;
use crate::cli::End;
use crate::cli::console::{StepProgress, print};
use crate::cli::eval::{EvalWork, ModelSource};
use crate::dataset::shapes::Shapes;
use crate::dataset::{Dataset, Split};
use crate::error::{Error, Result};
use crate::export::web::{self, Runtime};
use crate::export::{Agreement, ExportCard, ExportOptions, Exported, Pictures, Precision, Profile, folder};
use crate::infer::InferMode;
use crate::model::Model;
use crate::model_file::{self, ModelCard};
use crate::{export, files, kernels, probe, text};

/// Write a model as an ONNX file that is proven to be the same model
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Model file
    model: PathBuf,
    /// File to write, or with --profile triton or hf a new folder
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["verify", "web"])]
    out: Option<PathBuf>,
    /// Write a new folder instead: a page that runs the model in the browser, for any web server
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "verify", "profile"])]
    web: Option<PathBuf>,
    /// With --web: the unpacked npm package onnxruntime-web, of which the page takes what it needs
    #[arg(long, value_name = "DIR")]
    runtime: Option<PathBuf>,
    /// Height and width of the images; may be repeated: then the size becomes part of each name [default: a window of
    /// the model]
    #[arg(long = "size", value_name = "HxW", value_parser = size, allow_hyphen_values = true)]
    sizes: Vec<[usize; 2]>,
    /// Inputs and outputs of the file
    #[arg(long, value_enum, default_value_t = ProfileName::Default)]
    profile: ProfileName,
    /// How weights are stored, and what is computed with. Computing in f16 is not offered: what runs the file for the
    /// comparison widens it to f32
    #[arg(long, value_enum, default_value_t = PrecisionName::F32)]
    precision: PrecisionName,
    /// Images to compare the file and the model with: a folder that `data init` recognises, a dataset TOML or a
    /// built-in name [default: the model's validation split, or generated images where it is not there]
    #[arg(long, value_name = "DIR|TOML")]
    data: Option<PathBuf>,
    /// Change where these images are, for instance data.root=DIR; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    changes: Vec<String>,
    /// How many of these images, spread evenly
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    images: u32,
    /// Compare a file that was exported earlier with the model instead of writing one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "sizes", "profile", "precision"])]
    verify: Option<PathBuf>,
    /// Print what was compared as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProfileName {
    /// Image uint8 [N, H, W, 3] to labels uint8 [N, H, W]
    Default,
    /// The same image to logits float [N, classes, H, W]
    Logits,
    /// For QGIS's Deepness plugin
    Qgis,
    /// A folder for Triton's model repository
    Triton,
    /// A Hugging Face model folder
    Hf,
}

#[derive(Clone, Copy, ValueEnum)]
enum PrecisionName {
    /// 32-bit
    F32,
    /// Weights in 16 bits, half the size; computing in f32
    F16,
    /// Weights of convolutions and linear layers in 8 bits, a quarter of the size; computing in f32
    Int8,
    /// The same, and linear layers compute in 8 bits
    Int8Dynamic,
}

const EXAMPLES: &str = "Examples:
  structtoken export runs/camvid/model.safetensors -o camvid.onnx
  structtoken export runs/camvid/model.safetensors -o camvid.onnx --size 368x480 --size 720x960 --precision f16
  structtoken export runs/camvid/model.safetensors -o camvid/ --profile hf
  structtoken export runs/camvid/model.safetensors --web page/ --runtime package/
  structtoken export runs/camvid/model.safetensors --verify camvid.onnx --data other/ --images 100";

fn size(text: &str) -> std::result::Result<[usize; 2], String> {
    let side = |text: &str| text.parse::<usize>().ok();
    let sides = text.split_once('x').and_then(|(height, width)| Some([side(height)?, side(width)?]));
    sides.ok_or_else(|| "height and width, as 512x512".to_owned())
}

pub(crate) fn run(arguments: Arguments) -> Result<End> {
    let path = &arguments.model;
    if path.extension().is_some_and(|ending| ending == "toml") {
        return Err(Error::usage(format!("`{}` is a recipe, which holds no weights", path.display()))
            .with_hint("pass the model file that training wrote"));
    }
    if arguments.runtime.is_some() && arguments.web.is_none() {
        return Err(Error::usage("--runtime goes with --web").with_hint("add --web DIR, or leave --runtime out"));
    }
    if let Some(file) = &arguments.verify {
        return verify(&arguments, file);
    }
    let profile = if arguments.web.is_some() { Profile::Web } else { profile(arguments.profile) };
    let Some(out) = arguments.web.as_ref().or(arguments.out.as_ref()) else { unreachable!("the place is required") };
    if profile.is_folder() && arguments.sizes.len() > 1 {
        return Err(Error::usage("a folder holds one size")
            .with_hint("pass --size once, or export each to a folder of its own"));
    }
    let mut sizes: Vec<[usize; 2]> = Vec::new();
    for size in &arguments.sizes {
        if !sizes.contains(size) {
            sizes.push(*size);
        }
    }
    let place = |size: [usize; 2]| if sizes.len() > 1 { sized(out, size) } else { out.clone() };
    let places: Vec<PathBuf> = sizes.iter().map(|size| place(*size)).collect();
    places.iter().chain(places.is_empty().then_some(out)).try_for_each(|place| check_place(place, path, profile))?;
    let runtime = if profile == Profile::Web { Some(runtime(&arguments)?) } else { None };
    let (model, card) = model_file::open(path, &Device::flex())?;
    tell_what_differs(&model, &card, &sizes);
    if sizes.is_empty() {
        sizes.push(export::default_size(&model, &card));
    }
    if let Some([height, width]) = sizes.iter().find(|[height, width]| profile == Profile::Qgis && height != width) {
        let side = model.padded(*height.min(width));
        return Err(Error::new(format!("Deepness cuts square tiles; these are {height} x {width}"))
            .with_hint(format!("--size {side}x{side}")));
    }
    sizes.iter().try_for_each(|size| export::check_size(&model, *size, arguments.images as usize))?;
    let samples = samples(&model, &card, &arguments)?;
    // Nothing is written before all of them have passed.
    let mut made = Vec::new();
    for size in &sizes {
        let options = ExportOptions { size: *size, profile, precision: precision(arguments.precision) };
        let steps = StepProgress::new("exporting");
        steps.show(0, 1);
        let exported = export::export(&model, &card, &options, &samples.at(*size));
        steps.clear();
        let place = if sizes.len() > 1 { sized(out, *size) } else { out.clone() };
        made.push((place, options, exported?));
    }
    for (place, options, exported) in &made {
        match &runtime {
            Some(runtime) => {
                folder::write(place, &web::files(&name(path), &model, &card, options, exported, runtime)?)?;
            }
            None => write(place, path, &card, options, exported)?,
        }
    }
    tell(&made, arguments.json)?;
    Ok(End::Done)
}

/// Says where the file labels otherwise than `predict` does, though it is the same network.
fn tell_what_differs(model: &Model, card: &ModelCard, sizes: &[[usize; 2]]) {
    if card.eval.mode == InferMode::Whole {
        let [height, width] = sizes.first().copied().unwrap_or_else(|| export::default_size(model, card));
        talk!(
            "note: `predict` resizes images as the model says, and pads them to whole cells of {stride} pixels; the file \
             takes images of {height} x {width} only. Labels are those of `predict` for images that are resized and padded \
             in the same way (docs/export.md)",
            stride = model.padded(1)
        );
    }
    if card.eval.precision == kernels::Precision::Int8 {
        talk!("note: the model computes in eight bits, and the file in f32: labels may differ from those of `predict`");
    }
}

/// What the page needs beside the model.
fn runtime(arguments: &Arguments) -> Result<Runtime> {
    let Some(folder) = &arguments.runtime else {
        return Err(
            Error::new("the page needs onnxruntime-web, which is not part of this program").with_hint(web::hint())
        );
    };
    Runtime::open(folder)
}

/// What the model is called: as its file, or where that has the usual name, as its folder.
fn name(path: &Path) -> String {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let own = text(real.file_stem()).unwrap_or_default();
    let above = text(real.parent().and_then(Path::file_name));
    if own == "model" { above.unwrap_or(own) } else { own }
}

fn verify(arguments: &Arguments, file: &Path) -> Result<End> {
    let failed = |error: Error| match error.hint() {
        Some(_) => Error::file("verify", file, error),
        None => Error::file("verify", file, error).with_hint("export the model again"),
    };
    let bytes = files::read(file, 1 << 31).map_err(|error| {
        let within = [Profile::Hf, Profile::Triton, Profile::Web].map(|profile| file.join(folder::place(profile)));
        let hint = match within.iter().find(|within| within.is_file()) {
            Some(within) => format!("pass the file in it: {}", text::shell_word(within)),
            None => "pass a file that was exported earlier".to_owned(),
        };
        Error::file("read", file, error).with_hint(hint)
    })?;
    let written = export::read_card(&bytes).map_err(failed)?;
    let (model, card) = model_file::open(&arguments.model, &Device::flex())?;
    export::check_size(&model, written.size, arguments.images as usize).map_err(failed)?;
    let samples = samples(&model, &card, arguments)?;
    let agreement = export::verify(bytes, &model, &card, &samples.at(written.size)).map_err(failed)?;
    if arguments.json {
        print(&json(&[serde_json::json!({
            "file": file,
            "size": written.size,
            "profile": written.profile,
            "precision": written.precision,
            "agreement": agreement,
        })])?);
    } else {
        let ExportCard { profile, precision, .. } = written;
        print(&format!("{}  {}, {precision}\n{}", file.display(), profile.name(), agreed(&agreement)));
    }
    Ok(End::Done)
}

fn profile(name: ProfileName) -> Profile {
    match name {
        ProfileName::Default => Profile::Default,
        ProfileName::Logits => Profile::Logits,
        ProfileName::Qgis => Profile::Qgis,
        ProfileName::Triton => Profile::Triton,
        ProfileName::Hf => Profile::Hf,
    }
}

fn precision(name: PrecisionName) -> Precision {
    match name {
        PrecisionName::F32 => Precision::F32,
        PrecisionName::F16 => Precision::F16,
        PrecisionName::Int8 => Precision::Int8,
        PrecisionName::Int8Dynamic => Precision::Int8Dynamic,
    }
}

/// Refuses places that cannot be written, before any work is done.
fn check_place(out: &Path, model: &Path, profile: Profile) -> Result<()> {
    if profile.is_folder() {
        return folder::check(out);
    }
    if out.canonicalize().is_ok_and(|real| model.canonicalize().is_ok_and(|model| model == real)) {
        return Err(Error::new(format!("the file would replace `{}`, which is read", out.display()))
            .with_hint("name another file after --out"));
    }
    let named_as_folder = out.as_os_str().as_encoded_bytes().last().is_some_and(|last| *last == b'/');
    if out.is_dir() || named_as_folder {
        let file = text::shell_word(&out.join("model.onnx"));
        return Err(Error::new(format!("`{}` is a folder, and the export is a file", out.display()))
            .with_hint(format!("add a name, as in --out {file}; or add --profile hf or triton for a folder")));
    }
    if out.extension().is_none_or(|ending| ending != "onnx")
        && out.exists()
        && !files::read(out, 1 << 31).is_ok_and(|bytes| export::read_card(&bytes).is_ok())
    {
        return Err(Error::new(format!("`{}` is there already, and is no file that was exported", out.display()))
            .with_hint("name another file after --out, or remove this one"));
    }
    files::ensure_writable(out)
}

/// Images to compare with.
enum Samples {
    Real(Vec<(crate::image::Image, crate::image::Labels)>),
    Generated(Vec<crate::image::Image>),
}

impl Samples {
    fn at(&self, size: [usize; 2]) -> Pictures {
        match self {
            Self::Real(samples) => Pictures::real(samples.clone(), size),
            Self::Generated(images) => Pictures::generated(images.clone(), size),
        }
    }
}

fn samples(model: &Model, card: &ModelCard, arguments: &Arguments) -> Result<Samples> {
    let count = arguments.images as usize;
    let source =
        ModelSource { data: arguments.data.clone(), changes: arguments.changes.clone(), ..ModelSource::default() };
    match EvalWork::of(model.clone(), card, &arguments.model, &source) {
        Ok(work) => {
            let indices = probe::spread(work.dataset.len(), count);
            talk!("comparing on {} images of {}", indices.len(), work.name());
            let get = |index| work.dataset.get(index).map(|sample| (sample.image, sample.labels));
            Ok(Samples::Real(indices.into_iter().map(get).collect::<Result<_>>()?))
        }
        Err(error) if arguments.data.is_some() || !arguments.changes.is_empty() => Err(error),
        Err(error) => {
            talk!("note: the model's own images cannot be used ({error}): comparing on {count} generated images");
            let shapes = Shapes::new(0, Split::Val, count, 256);
            Ok(Samples::Generated(
                (0..count).map(|at| shapes.get(at).map(|sample| sample.image)).collect::<Result<_>>()?,
            ))
        }
    }
}

/// The name of one of several files.
fn sized(out: &Path, [height, width]: [usize; 2]) -> PathBuf {
    let mut name = out.file_stem().unwrap_or_default().to_os_string();
    name.push(format!("_{height}x{width}"));
    if let Some(ending) = out.extension() {
        name.push(".");
        name.push(ending);
    }
    out.with_file_name(name)
}

fn write(out: &Path, model: &Path, card: &ModelCard, options: &ExportOptions, exported: &Exported) -> Result<()> {
    let mut beside = match options.profile {
        Profile::Triton => folder::triton(&out.file_name().unwrap_or_default().to_string_lossy(), options),
        Profile::Hf => {
            let weights = files::read(model, files::UNLIMITED).map_err(|error| Error::file("read", model, error))?;
            folder::hugging_face(card, options, weights)?
        }
        _ => return files::write(out, &exported.bytes),
    };
    beside.push((folder::place(options.profile).to_owned(), exported.bytes.clone()));
    folder::write(out, &beside)
}

fn tell(made: &[(PathBuf, ExportOptions, Exported)], as_json: bool) -> Result<()> {
    if as_json {
        let each = made.iter().map(|(place, options, exported)| {
            serde_json::json!({
                "file": place,
                "size": options.size,
                "profile": options.profile,
                "precision": options.precision,
                "bytes": exported.bytes.len(),
                "operations": exported.nodes,
                "agreement": exported.agreement,
            })
        });
        print(&json(&each.collect::<Vec<_>>())?);
        return Ok(());
    }
    for (place, options, exported) in made {
        let [height, width] = options.size;
        print(&format!(
            "{}  {height} x {width}, {:.1} MB, {} operations\n{}",
            place.display(),
            exported.bytes.len() as f64 / 1e6,
            exported.nodes,
            agreed(&exported.agreement)
        ));
    }
    Ok(())
}

fn agreed(agreement: &Agreement) -> String {
    let miou = agreement.miou.map_or(String::new(), |[own, file]| {
        format!(", mIoU {:.2} % of the model and {:.2} % of the file", own * 100.0, file * 100.0)
    });
    format!(
        "{} {}images: largest difference {:.1e} of the largest score, {:.4} % of the labels the same{miou}",
        agreement.images,
        if agreement.generated { "generated " } else { "" },
        agreement.largest_difference,
        agreement.same_labels * 100.0
    )
}

fn json(values: &[serde_json::Value]) -> Result<String> {
    serde_json::to_string_pretty(values)
        .map_err(|error| Error::new("cannot print what was compared").with_source(error))
}
