//! What a function queues on a GPU, recorded once and launched again as a whole: a CUDA graph where there are such
//! graphs, else the list of launches with all that they were resolved to.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::backend::fusion::custom::StreamId;
use burn::backend::{Backend, BackendTypes, Cube, Dispatch, DispatchDevice};
use burn::tensor::{Device, Tensor};
use cubecl::prelude::*;

use crate::kernels::constant::held_while;
use crate::kernels::gpu::bridge::{Buffers, f32s, primitive, queue_parts};
use crate::kernels::gpu::rows::{cubes_for, flat_cube, index};

/// Runs before the recording, which fill the pools of memory that it takes from and let fusion settle.
const WARM_UP: usize = 3;

/// The launches of a function of some tensors.
pub(in crate::kernels) struct Recording {
    graph: <Dispatch as BackendTypes>::GraphPrimitive,
    device: Device,
    stream: StreamId,
    /// What the launches read and write.
    inputs: Vec<Tensor<1>>,
    outputs: Vec<Tensor<1>>,
    _constants: Vec<Tensor<2>>,
}

impl Recording {
    /// Records what `function` queues for tensors like these; none where the device cannot, or where the function does
    /// more than to launch kernels: reads, or uploads what is not a [`constant`](crate::kernels::constant).
    pub(in crate::kernels) fn new(
        inputs: Vec<Tensor<1>>,
        function: &dyn Fn(Vec<Tensor<1>>) -> Vec<Tensor<1>>,
    ) -> Option<Self> {
        let (device, inputs) = (inputs.first()?.device(), copied(inputs));
        let window = Window(device.as_dispatch());
        // Once they are there, each is in one buffer that nothing else holds.
        Dispatch::sync(window.0).ok()?;
        Dispatch::graph_prepare(window.0).ok()?;
        let (outputs, constants) = held_while(|| {
            for _ in 0..WARM_UP {
                let outputs = function(inputs.clone());
                Dispatch::sync(window.0).ok()?;
                drop(outputs); // held until here, as what nobody holds is not computed
            }
            Dispatch::graph_start_capture(window.0).ok()?;
            // Burn panics where the function reads, which no device can do meanwhile.
            catch_unwind(AssertUnwindSafe(|| function(inputs.clone()))).ok()
        });
        let (outputs, graph) = (outputs?, window.close()?);
        Some(Self { graph, device, stream: StreamId::current(), inputs, outputs, _constants: constants })
    }

    /// The function of other tensors of as many values; none on another thread than the recording's, whose launches
    /// are in no order with these, or where the device fails.
    ///
    /// # Safety
    /// All that the function read but its inputs is still there, and nobody changes it.
    pub(in crate::kernels) unsafe fn replay(&self, inputs: Vec<Tensor<1>>) -> Option<Vec<Tensor<1>>> {
        if StreamId::current() != self.stream {
            return None;
        }
        overwrite(&self.inputs, inputs);
        // SAFETY: inputs, outputs and constants are held here, the rest is by the caller's word, and the stream is that
        // of the recording.
        unsafe { Dispatch::graph_replay(self.device.as_dispatch(), &self.graph) }.ok()?;
        // The next replay writes over them.
        Some(copied(self.outputs.clone()))
    }
}

/// A capture under way, which ends however its owner does: a stream that still records refuses all else.
struct Window<'a>(&'a DispatchDevice);

impl Window<'_> {
    fn close(self) -> Option<<Dispatch as BackendTypes>::GraphPrimitive> {
        let graph = Dispatch::graph_stop_capture(self.0).ok();
        std::mem::forget(self);
        graph
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        let _ = Dispatch::graph_stop_capture(self.0);
    }
}

/// The values of each in a buffer of its own.
fn copied(tensors: Vec<Tensor<1>>) -> Vec<Tensor<1>> {
    let lengths: Vec<usize> = tensors.iter().map(|x| x.dims()[0]).collect();
    let part = |x: Tensor<1>| (vec![primitive(x.clone())], vec![f32s(x.dims())]);
    let copies = queue_parts("copy", tensors.into_iter().map(part).collect(), move |number, buffers| {
        copy(buffers, buffers.input(0), buffers.output(0), lengths[number]);
    });
    copies.into_iter().map(Tensor::from_primitive::<Cube>).collect()
}

/// Writes the values of each of `sources` into the buffer of its target, which has as many.
fn overwrite(targets: &[Tensor<1>], sources: Vec<Tensor<1>>) {
    let lengths: Vec<usize> = targets.iter().map(|x| x.dims()[0]).collect();
    assert!(sources.iter().map(|x| x.dims()[0]).eq(lengths.iter().copied()), "other inputs than were recorded");
    let part = |(source, target): (Tensor<1>, &Tensor<1>)| (vec![primitive(source), primitive(target.clone())], vec![]);
    queue_parts("overwrite", sources.into_iter().zip(targets).map(part).collect(), move |number, buffers| {
        copy(buffers, buffers.input(0), buffers.input(1), lengths[number]);
    });
}

fn copy(buffers: &Buffers, source: BufferArg, target: BufferArg, len: usize) {
    // SAFETY: both hold `len` values.
    unsafe { copy_values::launch_unchecked(buffers.client(), cubes_for(len), flat_cube(), source, target, len) };
}

#[cube(launch_unchecked)]
fn copy_values(source: &[f32], target: &mut [f32], len: usize) {
    let at = index();
    if at < len {
        target[at] = source[at];
    }
}
