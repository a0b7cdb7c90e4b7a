//! `structtoken data init`, and `structtoken init`, which is the same.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use structtoken::data::init::{self, Options, TextEncoding};
use structtoken::data::leftover::leftovers;
use structtoken::data::spec::DatasetSpec;
use structtoken::error::Result;
use structtoken::text::word;

use crate::End;
use crate::console::{Steps, print};

const EXAMPLES: &str = "Examples:
  structtoken data init streets/                          writes streets/dataset.toml
  structtoken data init export/ --names road,car,person
  structtoken data init scans/ --images raw --masks final --out scans.toml";

/// Look at a folder and write the TOML that describes it as a dataset
///
/// Known are folders of images and masks under their common names, YOLO, COCO, LabelMe, Supervisely and VIA outlines (drawn
/// as masks once, beside the TOML), several masks an image, Pascal VOC, Cityscapes, ADE20K, KITTI, LoveDA, Mapillary, and the
/// exports of CVAT and Label Studio. Without a validation split, one is made from the names of the images.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The folder
    dir: PathBuf,
    /// Where the TOML goes [default: DIR/dataset.toml]
    #[arg(long, value_name = "FILE.toml")]
    out: Option<PathBuf>,
    /// The folder of images, where its name does not say so
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// The folder of masks, where its name does not say so
    #[arg(long, value_name = "DIR")]
    masks: Option<PathBuf>,
    /// Names of the classes, in the order of their values in the masks
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    names: Vec<String>,
    /// The value that the first name stands for, where that is not clear: 0, or 1 if the names leave out the background
    #[arg(long, value_name = "0|1", value_parser = clap::value_parser!(u16).range(0..=1))]
    names_from: Option<u16>,
    /// Values of masks that count nowhere, as 255 in many sets; `none` if all are classes
    #[arg(long, value_name = "VALUES", value_delimiter = ',', value_parser = void)]
    void: Option<Vec<Void>>,
    /// Take coordinates beyond 1 in YOLO's files for pixels
    #[arg(long)]
    pixels: bool,
    /// Read masks that are JPEGs: values are taken for the nearest common one within so much, 16 for instance; 127 for masks
    /// of black and white
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=127))]
    jpeg_tolerance: Option<u8>,
    /// The encoding of names that are no Unicode
    #[arg(long, value_name = "ENCODING")]
    text: Option<Text>,
    /// Replace what an earlier `init` wrote
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
        text => text.parse().map(Void::Value).map_err(|_| "a number of 0 to 65535, or `none`".to_string()),
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
    let options = Options {
        images: arguments.images,
        masks: arguments.masks,
        names: arguments.names,
        first: arguments.names_from,
        void: arguments.void.map(values),
        jpeg_tolerance: arguments.jpeg_tolerance,
        pixels: arguments.pixels,
        text: arguments.text.map(|text| match text {
            Text::Gbk => TextEncoding::Gbk,
            Text::Latin1 => TextEncoding::Latin1,
        }),
    };
    let steps = Steps::new("reading masks");
    let plan = init::look(&arguments.dir, &out, &options, &|done, all| steps.show(done, all))?;
    steps.clear();
    let counts: Vec<String> = plan.counts.iter().map(|(split, count)| format!("{count} {split}")).collect();
    let (kind, classes) = (&plan.kind, plan.spec.classes.len());
    talk!("found {kind}: {} images, {classes} classes", counts.join(" and "));
    for note in &plan.notes {
        talk!("note: {note}");
    }
    let steps = Steps::new("drawing masks");
    let written = init::write(&plan, arguments.yes, &|done, all| steps.show(done, all))?;
    steps.clear();
    if plan.drawn() > 0 {
        talk!("drew {} masks", plan.drawn());
    }
    for left in leftovers(&DatasetSpec::read(&out)?, None)? {
        talk!("note: not used: {}; {}", left.text(), left.remedy);
    }
    written.iter().for_each(|path| print(&path.display().to_string()));
    talk!("next: structtoken data check {}", word(&out));
    Ok(End::Done)
}
