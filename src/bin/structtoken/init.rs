//! `structtoken init`.

use std::path::PathBuf;

use clap::Args;
use structtoken::data::init::{self, Options};
use structtoken::error::Result;

use crate::End;
use crate::console::{Steps, print};

const EXAMPLES: &str = "Examples:
  structtoken init streets/                          writes streets/dataset.toml
  structtoken init export/ --names road,car,person
  structtoken init scans/ --images raw --masks final --out scans.toml";

/// Look at a folder and write the TOML that describes it as a dataset
///
/// Known are folders of images and masks under their common names, YOLO, COCO and LabelMe outlines (drawn as masks once,
/// beside the TOML), Pascal VOC, Cityscapes, ADE20K, and the mask exports of CVAT and Label Studio. Without a validation
/// split, one is made from the names of the images.
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
    /// Replace files that are there already
    #[arg(long)]
    yes: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<End> {
    let out = arguments.out.unwrap_or_else(|| arguments.dir.join(init::FILE));
    let options = Options { images: arguments.images, masks: arguments.masks, names: arguments.names };
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
    written.iter().for_each(|path| print(&path.display().to_string()));
    talk!("next: structtoken data check '{}'", out.display());
    Ok(End::Done)
}
