//! `structtoken data init`, and `structtoken init`, which is the same.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::End;
use crate::cli::console::{StepProgress, print};
use crate::dataset::leftover::leftovers;
use crate::dataset::spec::DatasetSpec;
use crate::error::Result;
use crate::text::shell_word;
use crate::tools::init;
use crate::tools::init::{InitOptions, Purpose, TextEncoding};

const EXAMPLES: &str = "Examples:
  structtoken data init streets/                          writes streets/dataset.toml
  structtoken data init export/ --names road,car,person
  structtoken data init scans/ --images raw --masks final --out scans.toml";

/// Look at a folder and write the TOML that describes it as a dataset
///
/// It reads folders of images and masks with common names, one or several masks per image; Pascal VOC, Cityscapes,
/// ADE20K, KITTI, LoveDA and Mapillary; exports of CVAT and Label Studio; outlines of YOLO, COCO, LabelMe, Supervisely
/// and VIA; and run lengths in tables. Outlines and run lengths are drawn as masks next to the TOML. If there is no
/// validation split, it makes one from the names of the images.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Folder of the dataset
    dir: PathBuf,
    /// File to write [default: DIR/dataset.toml]
    #[arg(long, value_name = "FILE.toml")]
    out: Option<PathBuf>,
    /// Folder that holds the images, if `init` does not find it by its name
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Folder that holds the masks, if `init` does not find it by its name
    #[arg(long, value_name = "DIR")]
    masks: Option<PathBuf>,
    /// Names of the classes, in the order of their values in the masks; for outlines, and for several masks per image,
    /// in the order in which `init` lists the classes
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    names: Vec<String>,
    /// Value of the first name where that is not clear: 0, or 1 if the names leave out the background
    #[arg(long, value_name = "0|1", value_parser = clap::value_parser!(u16).range(0..=1))]
    names_from: Option<u16>,
    /// Mask values to ignore, often 255; `none` if all values are classes
    #[arg(long, value_name = "VALUES", value_delimiter = ',', value_parser = void)]
    void: Option<Vec<Void>>,
    /// Read coordinates above 1 in YOLO files as pixels
    #[arg(long)]
    pixels: bool,
    /// Read coordinates above 1 in YOLO files as percentages
    #[arg(long, conflicts_with = "pixels")]
    percent: bool,
    /// Read JPEG masks: round each value to the nearest common one that is at most N away, for instance 16; 127 for
    /// black-and-white masks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=127))]
    jpeg_tolerance: Option<u8>,
    /// Encoding of text that is not Unicode
    #[arg(long, value_name = "ENCODING")]
    text: Option<Text>,
    /// Overwrite what an earlier `init` wrote
    #[arg(long)]
    yes: bool,
}

/// A value of `--void`.
#[derive(Clone, Copy)]
enum Void {
    None,
    Value(u16),
}

fn void(text: &str) -> Result<Void, String> {
    match text {
        "none" => Ok(Void::None),
        text => text.parse().map(Void::Value).map_err(|_| "a number from 0 to 65535, or `none`".to_string()),
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Text {
    /// Chinese (GBK, GB 18030)
    Gbk,
    /// Western European (Latin-1, Windows 1252)
    Latin1,
}

pub(crate) fn run(arguments: Arguments) -> Result<End> {
    let out = arguments.out.unwrap_or_else(|| arguments.dir.join(init::FILE));
    let values = |void: Vec<Void>| {
        let value = |one: &Void| if let Void::Value(value) = one { Some(*value) } else { None };
        void.iter().filter_map(value).collect()
    };
    let options = InitOptions {
        images: arguments.images,
        masks: arguments.masks,
        names: arguments.names,
        first: arguments.names_from,
        void: arguments.void.map(values),
        jpeg_tolerance: arguments.jpeg_tolerance,
        pixels: arguments.pixels,
        percent: arguments.percent,
        purpose: Purpose::Lasting,
        text: arguments.text.map(|text| match text {
            Text::Gbk => TextEncoding::Gbk,
            Text::Latin1 => TextEncoding::Latin1,
        }),
    };
    let steps = StepProgress::new("reading masks");
    let plan = init::detect_format(&arguments.dir, &out, &options, &|done, all| steps.show(done, all))?;
    steps.clear();
    let counts: Vec<String> = plan.counts.iter().map(|(split, count)| format!("{count} {split}")).collect();
    let (kind, classes) = (&plan.kind, plan.spec.classes.len());
    let classes = if classes == 1 { "1 class".to_string() } else { format!("{classes} classes") };
    talk!("found {kind}: {} images, {classes}", counts.join(" and "));
    talk!("classes: {}", plan.classes());
    for note in plan.notes.iter().chain(&plan.split_note) {
        talk!("note: {note}");
    }
    let steps = StepProgress::new("drawing masks");
    let written = init::write(&plan, arguments.yes, &|done, all| steps.show(done, all))?;
    steps.clear();
    if plan.drawn() > 0 {
        talk!("drew {} masks", plan.drawn());
    }
    for left in leftovers(&DatasetSpec::read(&out)?, None)? {
        talk!("note: not used: {}; {}", left.text(), left.remedy);
    }
    written.iter().for_each(|path| print(&path.display().to_string()));
    talk!("next: structtoken data check {}", shell_word(&out));
    Ok(End::Done)
}
