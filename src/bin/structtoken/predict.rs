//! `structtoken predict`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use structtoken::error::{Error, Result};
use structtoken::image::outlines::{self, OutlineOptions};
use structtoken::image::{Image, ImageRemarks, Labels, encode_index_png, encode_png, read_image_noting};
use structtoken::infer::InferMode;
use structtoken::model::ModelConfig;
use structtoken::predict::earlier_predictions::{is_prediction, sign, write_recorded};
use structtoken::predict::{Predictor, encode_npy, write_probabilities};
use structtoken::shard::Shard;
use structtoken::tools::init::{Role, Roles};
use structtoken::{device, files, model_file};

use crate::console::{StepProgress, bar, emit, print};
use crate::list::{self, List};
use crate::outputs::{Collections, Described, Output, OutputFormat, Outputs, file_name, options, write_json};
use crate::shard::{self, Chosen};
use crate::{Computing, End};

/// Label images with a model
#[derive(Args)]
pub(crate) struct Arguments {
    /// Model file
    pub(crate) model: PathBuf,
    /// Images, or folders of images; in the folder of a dataset, masks are left out
    #[arg(required_unless_present = "list", conflicts_with = "list")]
    inputs: Vec<PathBuf>,
    /// File with one image path per line, or - for stdin: as many as you like. What is done is noted in a manifest in --out,
    /// and the same command continues after it; outputs lie below --out as the images' paths
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Try the images again that failed, by the manifest in --out
    #[arg(long, requires = "list")]
    only_failed: bool,
    /// Label every N-th image, starting at the I-th; auto is what an array job or MPI says
    #[arg(long, value_name = "I/N|auto", value_parser = crate::value::<Chosen>)]
    shard: Option<Chosen>,
    #[command(flatten)]
    count: shard::Count,
    /// Folder for what is written
    #[arg(long, value_name = "DIR", default_value = "predictions")]
    pub(crate) out: PathBuf,
    /// What to write; may be repeated, or list several with commas
    #[arg(long = "format", value_enum, value_name = "FORMAT", value_delimiter = ',', default_value = "png")]
    pub(crate) formats: Vec<OutputFormat>,
    /// Largest distance of simplified polygons from the pixel border, in pixels; below 0.5 they cover exactly the same pixels, and 0 keeps every corner
    #[arg(long, value_name = "PIXELS", default_value_t = OutlineOptions::default().tolerance)]
    pub(crate) tolerance: f64,
    /// Drop regions and fill holes of fewer pixels in polygons, run lengths and brush strokes
    #[arg(long, value_name = "PIXELS", default_value_t = OutlineOptions::default().min_area)]
    pub(crate) min_area: u64,
    /// Also write each image with its classes drawn over it
    #[arg(long)]
    pub(crate) overlay: bool,
    /// Also write the class probabilities, `[classes, height, width]`, as 16-bit .npy
    #[arg(long)]
    pub(crate) probabilities: bool,
    /// Also replace files that were not written by an earlier prediction
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Change a setting of the model, for instance eval.mode=slide for images that are too large as a whole; may be
    /// repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) changes: Vec<String>,
    /// Print what was written to stdout, one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) computing: Computing,
}

pub(crate) fn run(arguments: Arguments) -> Result<End> {
    let options = options(&arguments)?;
    let shard = arguments.shard.map_or(Ok(Shard::ALL), |chosen| shard::find(Some(chosen), arguments.count))?;
    if arguments.shard.is_none() && arguments.count.shards.is_some() {
        return Err(Error::new("--shards is for --shard auto").with_hint("add `--shard auto`, or leave out --shards"));
    }
    let collects = !Collections::paths(&arguments).is_empty();
    if collects && (arguments.list.is_some() || shard != Shard::ALL) {
        return Err(Error::new("one COCO file cannot be written by several shards, nor by a list that is continued")
            .with_hint("use a format with a file per image: --format png, geojson, label-studio, stats or npy"));
    }
    let images = if arguments.list.is_some() { Vec::new() } else { shard.of(images(&arguments)?) };
    let (device, _) = device::open(&arguments.computing.device)?;
    let (model, card) = model_file::open(&arguments.model, &device)?;
    let config = card.with_changes(&arguments.changes, &arguments.model)?;
    let whole = (config.eval.mode == InferMode::Whole).then(|| Whole { model: card.model.clone(), warned: false });
    let range = config.data.preprocess.range;
    let predictor = Predictor::new(model, config.data.preprocess, config.eval, device, card.classes)?;
    let seen = RemarkCounts::default();
    let mut labeller = Labeller { predictor, range, arguments: &arguments, options, whole, seen };
    if let Some(source) = &arguments.list {
        let list = List { source, shard, only_failed: arguments.only_failed };
        let end = list::run(&list, &arguments, &mut labeller);
        labeller.seen.say(labeller.predictor.has_range());
        return end;
    }
    // An image counts for as many steps, so that a large one moves the bar while it is looked at.
    const STEPS: u64 = 1000;
    let progress = bar("{wide_bar} {msg}  {eta} left");
    progress.set_length(images.len() as u64 * STEPS);
    let mut failed: Vec<Error> = Vec::new();
    let (names, read) = (labeller.predictor.classes().names.clone(), labeller.reader());
    let mut collections = Collections::begin(&arguments, OutlineOptions { min_area: 0, ..options }, &names)?;
    for (done, (path, name)) in images.iter().enumerate() {
        progress.set_message(format!("{}/{}", done + 1, images.len()));
        let mut within = |share: f64| progress.set_position(done as u64 * STEPS + (share * STEPS as f64) as u64);
        match read(path).and_then(|found| labeller.one(path, name, found, &mut within)) {
            Ok(labels) => collections.add(&file_name(path, name), &labels)?,
            Err(error) if images.len() == 1 => return Err(error),
            Err(error) => {
                progress.suspend(|| crate::report(&error));
                failed.push(error);
            }
        }
        progress.set_position((done as u64 + 1) * STEPS);
    }
    progress.finish_and_clear();
    labeller.seen.say(labeller.predictor.has_range());
    if failed.len() < images.len() {
        collections.finish(&arguments)?;
    }
    match failed.len() {
        0 => Ok(End::Done),
        count => Err(Error::new(format!("{count} of {} images could not be predicted", images.len()))
            .with_hint("the errors above say why; all others are written")),
    }
}

/// A model with what is asked of it, and what was seen of its images.
pub(crate) struct Labeller<'a> {
    predictor: Predictor,
    range: Option<[u16; 2]>,
    arguments: &'a Arguments,
    options: OutlineOptions,
    whole: Option<Whole>,
    seen: RemarkCounts,
}

/// A picture, with what there is to say about its file.
pub(crate) type Found = (Image, ImageRemarks);

impl Labeller<'_> {
    /// What reads pictures as the model wants them, on any thread.
    pub(crate) fn reader(&self) -> impl Fn(&Path) -> Result<Found> + Send + use<> {
        let range = self.range;
        move |path| read_image_noting(path, range)
    }

    /// Labels an image that was read and writes what is asked of it.
    pub(crate) fn label(&mut self, path: &Path, name: &Path, found: Found) -> Result<()> {
        self.one(path, name, found, &mut |_| ()).map(drop)
    }

    fn one(&mut self, path: &Path, name: &Path, found: Found, progress: &mut dyn FnMut(f64)) -> Result<Labels> {
        let asked = (self.arguments, self.options);
        one(&self.predictor, (path, name), found, asked, (self.whole.as_mut(), &mut self.seen), progress)
    }
}

/// A network that sees images as wholes.
struct Whole {
    model: ModelConfig,
    warned: bool,
}

impl Whole {
    /// Says once that an image will take very long: attention looks at all pairs of patches.
    fn warn(&mut self, path: &Path, (height, width): (usize, usize)) {
        const MANY: usize = 1 << 17;
        let features = self.model.backbone.features();
        let patches = height.div_ceil(features.stride()) * width.div_ceil(features.stride());
        if features.transformer.is_some() && patches > MANY && !self.warned {
            self.warned = true;
            talk!(
                "note: `{}` of {width} x {height} is processed as a whole: attention between all pairs of {patches} \
                 patches takes very long; --set eval.mode=slide uses a sliding window",
                path.display()
            );
        }
    }
}

/// What the pixels do not show of the files: how many, and the first of them.
#[derive(Default)]
struct RemarkCounts {
    pages: Option<(usize, PathBuf)>,
    transparent: Option<(usize, PathBuf)>,
    deep: Option<(usize, PathBuf)>,
    /// The highest value of 16 bits.
    high: u16,
}

impl RemarkCounts {
    fn add(&mut self, path: &Path, remarks: &ImageRemarks) {
        for (found, count) in [
            (remarks.more, &mut self.pages),
            (remarks.transparent, &mut self.transparent),
            (remarks.deep.is_some(), &mut self.deep),
        ] {
            if found {
                count.get_or_insert_with(|| (0, path.to_owned())).0 += 1;
            }
        }
        self.high = self.high.max(remarks.deep.map_or(0, |[_, high]| high));
    }

    /// `mapped`: the model says which 16-bit values are black and white.
    fn say(&self, mapped: bool) {
        let who = |(count, first): &(usize, PathBuf)| match count {
            1 => format!("`{}`", first.display()),
            count => format!("{count} images (`{}` first)", first.display()),
        };
        if let Some(pages) = &self.pages {
            talk!("note: several pages or frames in {}: the first is used", who(pages));
        }
        if let Some(transparent) = &self.transparent {
            talk!("note: transparent pixels in {}: the colours below the transparency are used", who(transparent));
        }
        let all = ImageRemarks { deep: Some([0, self.high]), ..ImageRemarks::default() };
        if let (Some(deep), Some([_, most]), false) = (&self.deep, all.narrow_range(), mapped) {
            talk!(
                "note: 16-bit images whose values end at {}: {}. The model has no `range`, so they are read as nearly \
                 black. If it was trained on such images, add --set data.preprocess.range=[0,{most}]",
                self.high,
                who(deep)
            );
        }
    }
}

/// Predicts an image and writes what is asked of it. Returns its labels without regions that are too small.
fn one(
    predictor: &Predictor,
    (path, name): (&Path, &Path),
    (image, remarks): Found,
    (arguments, options): (&Arguments, OutlineOptions),
    (whole, seen): (Option<&mut Whole>, &mut RemarkCounts),
    progress: &mut dyn FnMut(f64),
) -> Result<Labels> {
    seen.add(path, &remarks);
    if let Some(whole) = whole {
        whole.warn(path, (image.height, image.width));
    }
    let failed = |error| Error::new(format!("cannot predict `{}`", path.display())).with_source(error);
    let (labels, probabilities) = match arguments.probabilities {
        true => predictor.predict_with_probabilities(&image, progress).map_err(failed)?,
        false => (predictor.predict_with(&image, progress).map_err(failed)?, Vec::new()),
    };
    let outputs = Outputs::of(arguments, name);
    // Again: they may have come, or been edited, since all were looked at.
    if !arguments.overwrite {
        others(outputs.paths())?;
    }
    let names = &predictor.classes().names;
    let shown = file_name(path, name);
    // Once for all annotations.
    let dropped = match outlines::without_small(&labels, options.min_area) {
        Cow::Borrowed(_) => None,
        Cow::Owned(labels) => Some(labels),
    };
    let annotated = dropped.as_ref().unwrap_or(&labels);
    let options = OutlineOptions { min_area: 0, ..options };
    for (output, place) in &outputs.0 {
        match output {
            Output::Probabilities => {
                let shape = [predictor.classes().len(), image.height, image.width];
                write_probabilities(place, &probabilities, &shape)?;
            }
            Output::Png => files::write(place, &sign(encode_index_png(&labels, &predictor.classes().colors)?))?,
            Output::Overlay => files::write(place, &sign(encode_png(&predictor.overlay(&image, &labels))?))?,
            Output::Npy => write_recorded(place, &encode_npy(&labels))?,
            Output::GeoJson => write_json(place, &outlines::geojson(annotated, names, &shown, options))?,
            Output::LabelStudio => {
                let (link, model) = (outlines::label_studio_link(&shown), arguments.model.to_string_lossy());
                write_json(place, &[outlines::label_studio_task(annotated, names, &link, &model)])?;
            }
            Output::Stats => {
                let statistics = outlines::statistics(&labels, names);
                write_json(place, &Described { image: &shown, statistics })?;
            }
        }
    }
    if arguments.json {
        let found = outlines::statistics(&labels, names).classes;
        let classes: serde_json::Map<_, _> = found.into_iter().map(|class| (class.name, class.share.into())).collect();
        // A name that is not a text is written with what of it is.
        let shown = |path: &Path| path.to_string_lossy().into_owned();
        let mut written = serde_json::json!({"image": shown(path)});
        for (output, path) in &outputs.0 {
            written[output.key()] = shown(path).into();
        }
        written["classes"] = classes.into();
        emit(&written);
    } else {
        outputs.paths().for_each(|path| print(&path.display().to_string()));
    }
    Ok(dropped.unwrap_or(labels))
}

/// Every image among the inputs, with the name its outputs get: folders keep their inner structure.
fn images(arguments: &Arguments) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut found = Vec::new();
    for input in &arguments.inputs {
        if input.is_dir() {
            let before = found.len();
            let out = arguments.out.canonicalize().ok();
            let mut walk = FolderWalk { root: input, out, seen: BTreeSet::new(), earlier: Vec::new() };
            walk.enter(input, &mut found)?;
            let earlier = walk.left_out();
            only_images(input, before, &mut found);
            if found.len() == before {
                if let Some(earlier) = earlier {
                    return Err(Error::new(format!("`{}` holds no images but {earlier}", input.display()))
                        .with_hint("to label them anyway, pass the files"));
                }
                return Err(Error::new(format!("there are no images in `{}`", input.display()))
                    .with_hint(format!("images end in {}", ENDINGS.map(|ending| format!(".{ending}")).join(", "))));
            }
            if let Some(earlier) = earlier {
                talk!("note: `{}` holds {earlier}, left out; to label them too, pass the files", input.display());
            }
        } else {
            found.push((input.clone(), input.file_stem().unwrap_or_default().into()));
        }
    }
    found.sort();
    found.dedup();
    if !Collections::paths(arguments).is_empty() {
        Collections::check(&found)?;
    }
    let sources: BTreeSet<PathBuf> = found.iter().filter_map(|(path, _)| path.canonicalize().ok()).collect();
    let mut taken: BTreeMap<PathBuf, &Path> = BTreeMap::new();
    for (path, name) in &found {
        for output in Outputs::of(arguments, name).paths() {
            if output.canonicalize().is_ok_and(|output| sources.contains(&output)) {
                return Err(Error::new(format!(
                    "`{}` is an image to predict, and would be overwritten",
                    output.display()
                ))
                .with_hint("choose another folder with --out"));
            }
            if let Some(other) = taken.insert(output.clone(), path) {
                return Err(Error::new(format!(
                    "`{}` and `{}` would be written to the same file",
                    other.display(),
                    path.display()
                ))
                .with_hint("predict them in two calls with a different --out"));
            }
        }
    }
    for path in Collections::paths(arguments) {
        taken.insert(path, Path::new(""));
    }
    if !arguments.overwrite {
        others(taken.keys())?;
    }
    // One of each folder tells of all, but for those that are folders themselves.
    let mut folder = None;
    for path in taken.keys() {
        if path.is_dir() || folder.replace(path.parent()) != Some(path.parent()) {
            files::ensure_writable(path)?;
        }
    }
    Ok(found)
}

/// Fails if there are files at the places of outputs that no prediction wrote.
pub(crate) fn others<'a>(outputs: impl Iterator<Item = &'a PathBuf>) -> Result<()> {
    // What is not a file is written to as it is, or refused.
    let there = |path: &Path| path.is_file() || (path.is_symlink() && !path.exists());
    let mut others = outputs.filter(|path| there(path) && !is_prediction(path));
    let Some(first) = others.next() else { return Ok(()) };
    let more = match others.count() {
        0 => String::new(),
        more => format!(", and so would {more} more"),
    };
    Err(Error::new(format!(
        "`{}` was not written by an earlier prediction, and would be replaced{more}",
        first.display()
    ))
    .with_hint("choose another folder with --out, or replace such files too with --overwrite"))
}

/// Of the pictures from `before` on, which lie in `folder`: its images alone, if it is a dataset. Others are as many as there
/// were before.
fn only_images(folder: &Path, before: usize, found: &mut Vec<(PathBuf, PathBuf)>) {
    let steps = StepProgress::new("looking for masks");
    let roles = Roles::of(folder, &|done, all| steps.show(done, all));
    steps.clear();
    let roles = match roles {
        Ok(Some(roles)) => roles,
        Ok(None) => return,
        Err(error) => {
            let folder = folder.display();
            return talk!(
                "note: `{folder}` has folders of images and masks, but cannot be read as a dataset: {error}; all pictures in \
                 it are labelled, including masks; pass the folder of images to label only them"
            );
        }
    };
    let role: Vec<Role> = found[before..].iter().map(|(path, _)| roles.role(path)).collect();
    let count = |of: Role| role.iter().filter(|role| **role == of).count();
    let (images, masks, others) = (count(Role::Image), count(Role::Mask), count(Role::Other));
    if images == 0 || masks + others == 0 {
        return;
    }
    let first = |of: Role| found[before..].iter().zip(&role).find(|(_, role)| **role == of);
    let left = [(masks, Role::Mask, "masks"), (others, Role::Other, "pictures of other folders")];
    let left = left.iter().filter_map(|(count, role, what)| {
        let ((path, _), _) = first(*role)?;
        Some(format!("{what} ({count}, `{}` first)", path.display()))
    });
    talk!(
        "note: `{}` is a dataset: its images are labelled ({images}); left out: {}; to label these too, name their folders",
        folder.display(),
        left.collect::<Vec<_>>().join(" and ")
    );
    let mut role = role.into_iter();
    let mut at = 0;
    found.retain(|_| {
        at += 1;
        at <= before || role.next() == Some(Role::Image)
    });
}

/// The endings of images in folders.
const ENDINGS: [&str; 8] = ["jpg", "jpeg", "png", "tif", "tiff", "bmp", "gif", "webp"];

/// Finds images in a folder and those below it.
struct FolderWalk<'a> {
    root: &'a Path,
    /// What was predicted before is not an input.
    out: Option<PathBuf>,
    /// Folders that have been entered: links may lead in circles.
    seen: BTreeSet<PathBuf>,
    /// What was predicted into other folders, or beside the images, which is not an input either.
    earlier: Vec<PathBuf>,
}

impl FolderWalk<'_> {
    /// The earlier predictions that were met, in words.
    fn left_out(&self) -> Option<String> {
        let first = self.earlier.iter().min()?;
        let (count, first) = (self.earlier.len(), first.display());
        Some(match count {
            1 => format!("an earlier prediction (`{first}`)"),
            count => format!("earlier predictions ({count}, `{first}` first)"),
        })
    }

    fn enter(&mut self, folder: &Path, found: &mut Vec<(PathBuf, PathBuf)>) -> Result<()> {
        let canonical = folder.canonicalize().map_err(|error| Error::file("read", folder, error))?;
        if (self.out.as_ref() == Some(&canonical) && folder != self.root) || !self.seen.insert(canonical) {
            return Ok(());
        }
        let entries = std::fs::read_dir(folder).map_err(|error| Error::file("read", folder, error))?;
        for entry in entries {
            let path = entry.map_err(|error| Error::file("read", folder, error))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            if name.starts_with('.') {
                continue;
            }
            if path.is_dir() {
                self.enter(&path, found)?;
            } else if ending == "png" && is_prediction(&path) {
                self.earlier.push(path);
            } else if ENDINGS.contains(&ending.as_str()) {
                let inner = path.strip_prefix(self.root).unwrap_or(&path).with_extension("");
                found.push((path.clone(), inner));
            } else if ["heic", "avif", "jxl", "jp2", "tga", "exr"].contains(&ending.as_str()) {
                talk!("skipped `{}`: its format is not supported", path.display());
            }
        }
        Ok(())
    }
}
