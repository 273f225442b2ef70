"""Models as files that run elsewhere: `torch.export`, AOTInductor and ONNX."""

from sepfast.export.networks import Network, Port, network_of
from sepfast.export.program import export_program
from sepfast.export.written import FORMATS, Written, write_export

__all__ = [
    "FORMATS",
    "Network",
    "Port",
    "Written",
    "export_program",
    "network_of",
    "write_export",
]
