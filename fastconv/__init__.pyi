from . import torch as torch
from .algebra import (
    BilinearAlgorithm as BilinearAlgorithm,
)
from .algebra import (
    Matrices as Matrices,
)
from .algebra import (
    VerificationError as VerificationError,
)
from .algebra import (
    algorithm as algorithm,
)
from .algebra import (
    algorithms as algorithms,
)
from .algebra import (
    best_points as best_points,
)
from .algebra import (
    circle_points as circle_points,
)
from .algebra import (
    complex_points as complex_points,
)
from .algebra import (
    published_points as published_points,
)
from .algebra import (
    strided as strided,
)
from .algebra import (
    toom_cook as toom_cook,
)
from .arithmetic import (
    Policy as Policy,
)
from .error import (
    Constants as Constants,
)
from .error import (
    ErrorReport as ErrorReport,
)
from .error import (
    Moments as Moments,
)
from .error import (
    Prediction as Prediction,
)
from .error import (
    Sample as Sample,
)
from .error import (
    SampledPrediction as SampledPrediction,
)
from .error import (
    Tolerance as Tolerance,
)
from .error import (
    bound_error as bound_error,
)
from .error import (
    certified_constant as certified_constant,
)
from .error import (
    error_constants as error_constants,
)
from .error import (
    evaluate as evaluate,
)
from .error import (
    measure_error as measure_error,
)
from .error import (
    predict_error as predict_error,
)
from .error import (
    reference as reference,
)
from .error import (
    theorem_bound as theorem_bound,
)
from .error import (
    tolerance as tolerance,
)
from .exact import (
    INF as INF,
)
from .exact import (
    Gaussian as Gaussian,
)
from .kernels import (
    Activation as Activation,
)
from .kernels import (
    Plan as Plan,
)
from .kernels import (
    conv1d as conv1d,
)
from .kernels import (
    conv2d as conv2d,
)
from .kernels import (
    flush_subnormals as flush_subnormals,
)
from .kernels import (
    plan_conv1d as plan_conv1d,
)
from .kernels import (
    plan_conv2d as plan_conv2d,
)
from .network import (
    Comparison as Comparison,
)
from .network import (
    Contender as Contender,
)
from .network import (
    Explanation as Explanation,
)
from .network import (
    KnownNetwork as KnownNetwork,
)
from .network import (
    LayerChoice as LayerChoice,
)
from .network import (
    Network as Network,
)
from .network import (
    Option as Option,
)
from .network import (
    Row as Row,
)
from .network import (
    Runner as Runner,
)
from .network import (
    compare as compare,
)
from .network import (
    fitted as fitted,
)
from .network import (
    known_network as known_network,
)
from .network import (
    known_networks as known_networks,
)
from .network import (
    load_onnx as load_onnx,
)
from .search import (
    CertifiedLimit as CertifiedLimit,
)
from .search import (
    PointSet as PointSet,
)
from .search import (
    SearchResult as SearchResult,
)
from .search import (
    certified_limit as certified_limit,
)
from .search import (
    search_points as search_points,
)

__version__: str
