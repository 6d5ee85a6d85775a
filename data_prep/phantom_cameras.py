"""Fundus cameras of the embedded phantom: how each camera and clinic turns an eye into a colour picture.

What differs between the public data sets guided the four cameras (names of the data are given for the kind of picture,
not as a claim to imitate a device exactly):
    Drishti-GS (Sivaswamy et al., ISBI 2014): centred on the disc, bright, yellow-orange       -> bright_clinic, source
    REFUGE training set, Zeiss Visucam 500, and its test set, Canon CR-2 (Orlando et al., Medical Image Analysis 2020):
        another white balance and sharpness, edge of the field in the picture                  -> cool_camera
    RIGA / MESSIDOR (Almazroa et al., SPIE Medical Imaging 2018), RIM-ONE (Fumero et al., CBMS 2011): dark, red,
        strong contrast, vignetting                                                           -> dark_red_camera
    Low-quality clinical pictures: uneven light, haze of a cataract, blur, artefacts (Shen et al., Modeling and
        enhancing low-quality retinal fundus images, IEEE TMI 2020)                            -> hazy_clinic

The image formation follows Shen et al. 2020: light transmission with a veil of scattered light, uneven illumination,
blur; then sensor, tone curve and compression of the camera.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from data_prep.phantom_fundus import BLOOD, SIZE, Array, Eye, smooth_noise

Triple = tuple[float, float, float]

LENS_ABSORPTION = np.array([0.03, 0.22, 1.0], dtype=np.float32)
"""Relative optical density of the ageing lens in red, green and blue (yellowing: van de Kraats and van Norren 2007)."""


@dataclass(frozen=True)
class Camera:
    """One camera and clinic.

    Attributes:
        name: domain name.
        lamp: spectrum of the flash after white balance, gain of red, green and blue.
        lens: optical density of the patients' lenses in blue.
        crosstalk: share of each sensor colour that comes from its neighbours' light, 0-1.
        exposure: gain before the tone curve; above 1 the brightest tissue clips.
        gamma: exponent of the tone curve in red, green and blue.
        contrast: slope of an S-shaped tone curve, 0 is none.
        vignette: loss of light in the corner, 0-1.
        uneven: standard deviation of the smooth illumination, relative.
        haze: share of the picture replaced by scattered light at its densest, 0-1.
        veil: colour of the scattered light.
        blur: standard deviation of defocus, px.
        sharpen: gain of the camera's unsharp mask (radius 2 px).
        noise: standard deviation of sensor noise, share of full scale.
        jpeg: JPEG quality, 1-95.
        field_edge: share of the pictures in which the edge of the camera's field is seen.
        jitter: relative spread of exposure, gamma, haze and blur between pictures of the camera.
    """

    name: str
    lamp: Triple
    lens: float
    crosstalk: float
    exposure: float
    gamma: Triple
    contrast: float
    vignette: float
    uneven: float
    haze: float
    veil: Triple
    blur: float
    sharpen: float
    noise: float
    jpeg: int
    field_edge: float = 0.0
    jitter: float = 0.1


CAMERAS: tuple[Camera, ...] = (
    Camera(
        name="bright_clinic", lamp=(1.0, 1.0, 0.85), lens=0.35, crosstalk=0.05, exposure=1.05, gamma=(0.8, 0.85, 0.9),
        contrast=0.0, vignette=0.12, uneven=0.05, haze=0.03, veil=(0.5, 0.3, 0.1), blur=1.0, sharpen=0.0, noise=0.008,
        jpeg=92,
    ),
    Camera(
        name="cool_camera", lamp=(0.88, 1.0, 1.15), lens=0.05, crosstalk=0.15, exposure=1.2, gamma=(1.2, 0.8, 0.75),
        contrast=0.0, vignette=0.25, uneven=0.08, haze=0.1, veil=(0.3, 0.45, 0.4), blur=0.7, sharpen=0.9, noise=0.015,
        jpeg=85, field_edge=0.5,
    ),
    Camera(
        name="dark_red_camera", lamp=(1.0, 0.75, 0.6), lens=0.6, crosstalk=0.08, exposure=0.8, gamma=(0.8, 1.05, 1.1),
        contrast=3.5, vignette=0.55, uneven=0.12, haze=0.03, veil=(0.35, 0.1, 0.05), blur=1.4, sharpen=0.0, noise=0.018,
        jpeg=75,
    ),
    Camera(
        name="hazy_clinic", lamp=(1.0, 0.95, 0.8), lens=0.7, crosstalk=0.25, exposure=1.1, gamma=(0.9, 0.8, 0.8),
        contrast=0.0, vignette=0.3, uneven=0.14, haze=0.5, veil=(0.72, 0.58, 0.42), blur=2.4, sharpen=0.0, noise=0.02,
        jpeg=60,
    ),
)  # fmt: skip
"""The source camera first, then the unseen ones."""


def _illumination(camera: Camera, rng: np.random.Generator) -> Array:
    """Return the light that reaches each pixel, about 1 at its brightest; shape (SIZE, SIZE)."""
    axis = np.linspace(-1, 1, SIZE, dtype=np.float32)
    cx, cy = rng.normal(0.0, 0.25, 2)
    distance = np.hypot(axis[None, :] - cx, axis[:, None] - cy) / np.sqrt(2.0)
    falloff = 1.0 - camera.vignette * np.clip(distance, 0, 1.3) ** 2
    return np.clip(falloff * (1.0 + camera.uneven * smooth_noise(rng, 60.0)), 0.1, 1.5).astype(np.float32)


def _tone(light: Array, camera: Camera, rng: np.random.Generator) -> Array:
    """Apply exposure, tone curve per colour and the S-shaped contrast; values 0-1, clipping as a sensor does."""
    exposure = camera.exposure * (1.0 + camera.jitter * rng.normal())
    light = np.clip(light * exposure, 1e-4, 1.0)
    gamma = np.array(camera.gamma) * (1.0 + camera.jitter * rng.normal())
    toned = light ** gamma[:, None, None]
    if camera.contrast > 0:
        low, high = 1 / (1 + np.exp(camera.contrast * 0.45)), 1 / (1 + np.exp(-camera.contrast * 0.55))
        toned = (1 / (1 + np.exp(-camera.contrast * (toned - 0.45))) - low) / (high - low)
    return toned.astype(np.float32)


def _field_mask(eye: Eye, rng: np.random.Generator) -> Array:
    """Return the camera's round field when its nasal edge is in the picture: 1 inside, 0 outside."""
    axis = np.arange(SIZE, dtype=np.float32)
    p = eye.parameters
    radius, gap = rng.uniform(330.0, 420.0), p.disc_radius * rng.uniform(1.2, 1.5)
    centre_x = p.centre[0] + p.side * (radius - gap)
    distance = np.hypot(axis[None, :] - centre_x, axis[:, None] - p.centre[1] - rng.normal(0, 40))
    return np.clip((radius - distance) / 2.0, 0, 1).astype(np.float32)


def photograph(camera: Camera, eye: Eye, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Render one eye with one camera: RGB, shape (SIZE, SIZE, 3). ``rng`` draws light, haze, noise and framing."""
    lamp = np.array(camera.lamp, dtype=np.float32) * np.exp(0.04 * rng.normal(size=3)).astype(np.float32)
    blood = np.exp(-BLOOD[:, None, None] * eye.blood[None])
    light = (
        eye.reflectance * blood + 0.10 * eye.reflex[None] * np.array([1.0, 0.6, 0.4], dtype=np.float32)[:, None, None]
    )
    lens = camera.lens * np.exp(0.2 * rng.normal())
    light = light * (lamp * np.exp(-lens * LENS_ABSORPTION))[:, None, None] * _illumination(camera, rng)[None]
    haze = camera.haze * (1.0 + camera.jitter * rng.normal())
    cloud = np.clip(haze * (0.75 + 0.25 * smooth_noise(rng, 45.0)), 0.0, 0.85)
    light = light * (1 - cloud[None]) + np.array(camera.veil, dtype=np.float32)[:, None, None] * cloud[None]
    blur = max(0.3, camera.blur * (1.0 + 1.5 * camera.jitter * rng.normal()))
    light = ndimage.gaussian_filter(light, (0, blur, blur))
    mix = (1 - camera.crosstalk) * np.eye(3) + camera.crosstalk / 2 * (1 - np.eye(3))
    picture = _tone(np.tensordot(mix.astype(np.float32), light, axes=1), camera, rng)
    # Sensor noise is coloured by the camera's demosaicing, hence slightly correlated.
    noise = ndimage.gaussian_filter(rng.standard_normal(picture.shape).astype(np.float32), (0, 0.6, 0.6)) / 0.46
    picture = picture + camera.noise * noise
    if camera.sharpen > 0:
        picture = picture + camera.sharpen * (picture - ndimage.gaussian_filter(picture, (0, 2.0, 2.0)))
    if rng.random() < camera.field_edge:
        picture = picture * _field_mask(eye, rng)[None]
    pixels = np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=camera.jpeg)
    with Image.open(io.BytesIO(stream.getvalue())) as stored:
        return np.asarray(stored.convert("RGB"), dtype=np.uint8)
