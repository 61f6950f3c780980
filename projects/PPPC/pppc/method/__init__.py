"""The paper: Gaussians, prototypes, contrast, crop, mixing and teacher, without a configuration."""
