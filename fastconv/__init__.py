"""Fast convolution algorithms: exact matrices, their floating-point error, and layers that run them.

"Convolution" is correlation, as in deep learning: ``y_i = sum_k w_k x_{i+k}``. Names are loaded when they are first used, so that
``import fastconv`` costs next to nothing; ``__init__.pyi`` lists them, for type checkers too.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
