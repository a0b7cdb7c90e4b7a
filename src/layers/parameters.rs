//! A model's parameters by name: the one way to walk them.
//!
//! A name is the path of field names, as in PyTorch's state dicts; the variant of an enum (which backbone, which
//! decoder) is not part of it. Every parameter is seen flat, so that one closure serves all ranks.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Gradients, Tensor};

use crate::kernels;

/// One parameter, seen while walking a model.
pub struct Parameter<'a> {
    /// For instance `backbone.blocks.0.attn.qkv.weight`.
    pub name: &'a str,
    /// Its shape.
    pub shape: &'a [usize],
    /// Stays the same while its values change.
    pub id: ParamId,
    /// Does it learn?
    pub trainable: bool,
}

/// Calls `see` for every parameter with its values, flat and without autodiff, in the order of the fields.
pub fn visit(module: &impl Module, see: impl FnMut(Parameter, Tensor<1>)) {
    show(module, &mut Flat(see));
}

/// The name, shape and id of every parameter, in the order of the fields. No value is looked at: those that have not
/// been made yet are not made.
pub fn list(module: &impl Module) -> Vec<(String, Vec<usize>, ParamId)> {
    let mut shapes = Shapes(Vec::new());
    show(module, &mut shapes);
    shapes.0
}

/// A parameter in the graph of the passes.
pub(crate) struct Node {
    pub(crate) name: String,
    /// Its elements.
    pub(crate) len: usize,
    /// Where a [`kernels::GradientHook`] sees it.
    pub(crate) node: Option<u64>,
}

/// Every parameter, in the order of the fields.
pub(crate) fn nodes(module: &impl Module) -> Vec<Node> {
    let mut nodes = Nodes(Vec::new());
    show(module, &mut nodes);
    nodes.0
}

/// Takes the gradients of `module` out of `grads`: the name of every parameter that has one, and its flat gradient.
pub fn gradients(module: &impl Module, grads: Gradients) -> Vec<(String, Tensor<1>)> {
    let mut taken = Taken { grads, found: Vec::new() };
    show(module, &mut taken);
    taken.found
}

/// What is done with the parameters of a module in their own ranks.
pub(crate) trait See {
    /// One parameter, by name.
    fn see<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>);
}

/// Shows every parameter as it is, in the order of the fields.
pub(crate) fn show(module: &impl Module, to: &mut impl See) {
    module.visit(&mut Named { path: Path::default(), to });
}

/// Replaces every parameter for which `change` returns new values; values are flat and without autodiff.
pub fn map<M: Module>(module: M, change: impl FnMut(Parameter, Tensor<1>) -> Tensor<1>) -> M {
    module.map(&mut Change { path: Path::default(), change })
}

/// The path of field names on the way down.
#[derive(Default)]
struct Path(Vec<String>);

impl Path {
    /// A variant is entered under its own name by an `Enum:…` container; it leaves an empty place in the path.
    fn enter(&mut self, name: &str, container: &str) {
        self.0.push(if container.starts_with("Enum:") { String::new() } else { name.to_owned() });
    }

    fn exit(&mut self) {
        self.0.pop();
    }

    fn name(&self) -> String {
        self.0.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(".")
    }
}

/// Parameters as they are met, with their names.
struct Named<'a, S> {
    path: Path,
    to: &'a mut S,
}

impl<S: See> ModuleVisitor for Named<'_, S> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.to.see(&self.path.name(), param);
    }
}

struct Flat<F>(F);

impl<F: FnMut(Parameter, Tensor<1>)> See for Flat<F> {
    fn see<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let shape = tensor.dims();
        let parameter = Parameter { name, shape: &shape, id: param.id, trainable: tensor.is_require_grad() };
        (self.0)(parameter, tensor.inner().reshape([shape.iter().product::<usize>()]));
    }
}

struct Shapes(Vec<(String, Vec<usize>, ParamId)>);

impl See for Shapes {
    fn see<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
        self.0.push((name.to_owned(), param.lazy_shape().to_vec(), param.id));
    }
}

struct Nodes(Vec<Node>);

impl See for Nodes {
    fn see<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let node = tensor.is_require_grad().then(|| kernels::node(tensor.clone())).flatten();
        self.0.push(Node { name: name.to_owned(), len: tensor.dims().iter().product(), node });
    }
}

struct Taken {
    grads: Gradients,
    found: Vec<(String, Tensor<1>)>,
}

impl See for Taken {
    fn see<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
        if let Some(grad) = param.val().grad_remove(&mut self.grads) {
            let len = grad.dims().iter().product::<usize>();
            self.found.push((name.to_owned(), grad.reshape([len])));
        }
    }
}

struct Change<F> {
    path: Path,
    change: F,
}

impl<F: FnMut(Parameter, Tensor<1>) -> Tensor<1>> ModuleMapper for Change<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let shape = tensor.dims();
        let name = self.path.name();
        let (trainable, autodiff) = (tensor.is_require_grad(), tensor.device().is_autodiff());
        let parameter = Parameter { name: &name, shape: &shape, id, trainable };
        let flat = tensor.inner().reshape([shape.iter().product::<usize>()]);
        let changed = (self.change)(parameter, flat).reshape(shape);
        let changed = if autodiff { Tensor::from_inner(changed).set_require_grad(trainable) } else { changed };
        Param::from_mapped_value(id, changed, mapper)
    }
}
