"""Magnetic-resonance sites of the embedded prostate phantom: how each scanner turns anatomy into a T2-weighted volume.

The six sites imitate the six data sets of the multi-site prostate release (Liu et al., MS-Net, IEEE TMI 2020; Liu et
al., Shape-aware Meta-learning, MICCAI 2020; three of them from PROMISE12, Litjens et al., Medical Image Analysis 2014),
which publish for each site field strength, coil, vendor and resolution:

    RUNMC  3 T        surface coil      Siemens  0.6-0.625 mm / 3.6-4 mm     -> surface_3t (the source)
    BMC    1.5 T      endorectal coil   Philips  0.4 mm / 3 mm               -> endorectal_15t
    I2CVB  3 T        no endorectal     Siemens  0.67-0.79 mm / 1.25 mm      -> fatsat_3t
    UCL    1.5 and 3 T no endorectal    Siemens  0.325-0.625 mm / 3-3.6 mm   -> short_echo_15t
    BIDMC  3 T        endorectal coil   GE       0.25 mm / 2.2-3 mm          -> endorectal_3t
    HK     1.5 T      endorectal coil   Siemens  0.625 mm / 3.6 mm           -> flat_endorectal_15t

In-plane resolution is about twice as coarse here and thin slices are thicker, to keep the data small; the order of the
sites is kept. Not published per site, and chosen here within clinical practice: TR, TE, echo-train effect on fat, fat
suppression, correction of the coil profile, noise level and display curve.

Sources of the model:
    Relaxation times of fat, marrow and whole prostate: de Bazelaire et al., Radiology 2004; muscle and the other
    tissues: chosen inside the ranges over studies of Bojorquez et al., Magnetic Resonance Imaging 2017. The zones are
    spread around the whole prostate's T2 so that their order is that of clinical pictures.
    Fat is brighter in echo trains than its T2 says: Henkelman et al., JMRI 1992 (`MriSite.fat_t2_factor`).
    Noise of magnitude images: Gudbjartsson and Patz, Magnetic Resonance in Medicine 1995.
    Smooth multiplicative coil profile: Sled et al., IEEE TMI 1998.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from data_prep.phantom_prostate import Anatomy
from data_prep.phantom_shapes import Array

TISSUES: dict[str, tuple[float, float, float, float, float]] = {
    # name: T1 at 1.5 T, T2 at 1.5 T, T1 at 3 T, T2 at 3 T (all ms), proton density relative to water
    "fat": (343, 58, 382, 68, 0.90),
    "marrow": (549, 49, 586, 49, 0.75),
    "muscle": (1000, 42, 1200, 38, 0.80),
    "fibrous": (900, 28, 1000, 26, 0.60),
    "cortical_bone": (500, 2, 500, 2, 0.15),
    "peripheral": (1500, 160, 1750, 145, 0.95),
    "transition": (1320, 105, 1550, 95, 0.90),
    "stroma": (1150, 62, 1350, 56, 0.82),
    "urine": (3500, 900, 4000, 800, 1.00),
    "vein": (1450, 190, 1700, 165, 0.90),
    "bowel_wall": (1100, 75, 1300, 68, 0.85),
    "stool": (800, 65, 900, 60, 0.65),
    "gas": (1000, 1, 1000, 1, 0.0),
}
"""Relaxation times and proton density by tissue."""

FATTY = ("fat", "marrow")
"""Tissues whose signal is mostly lipid."""


@dataclass(frozen=True)
class MriSite:
    """One site: protocol, coil, noise and what the vendor's reconstruction does to the picture.

    Attributes:
        name: domain name.
        field_strength: 1.5 or 3.0, tesla.
        repetition_time: TR, ms.
        echo_time: effective TE, ms.
        fat_t2_factor: apparent T2 of fat over its T2, because of J-coupling in echo trains; 1 is a plain spin echo.
        fat_suppression: share of the fat signal removed, 0-1.
        matrix: pixels along each in-plane axis.
        pixel_mm: in-plane spacing, mm.
        slice_mm: slice distance (and thickness), mm.
        blur_mm: standard deviation of the in-plane point spread beyond the pixel itself, mm.
        endorectal: whether an inflated endorectal coil is used.
        coil_depth_mm: distance over which the sensitivity of a coil element falls to 0.35, mm.
        coil_correction: exponent with which the reconstruction divides by the coil profile: 0 not at all, 1 fully.
        coil_floor: sensitivity of the body coil combined with an endorectal coil, relative to its surface.
        noise: standard deviation of each quadrature channel at the centre of the gland, relative to the signal of fat
            at the source protocol.
        curve: exponent of the monotone display curve, 1 is linear, below 1 lifts dark tissue.
        shoulder: signal (same unit as ``noise``) at which bright tissue starts to saturate; large is linear.
        scale: grey values for the signal of fat at the source protocol.
        shift_mm: standard deviation of the gland's distance from the centre of the picture along each axis, mm.
        jitter: relative spread of TE, curve, noise and coil depth between patients of the site.
    """

    name: str
    field_strength: float
    repetition_time: float
    echo_time: float
    fat_t2_factor: float
    fat_suppression: float
    matrix: int
    pixel_mm: float
    slice_mm: float
    blur_mm: float
    endorectal: bool
    coil_depth_mm: float
    coil_correction: float
    coil_floor: float
    noise: float
    curve: float
    shoulder: float
    scale: float
    shift_mm: float = 3.5
    jitter: float = 0.08


PROSTATE_SITES: tuple[MriSite, ...] = (
    MriSite(
        name="surface_3t", field_strength=3.0, repetition_time=5200, echo_time=104, fat_t2_factor=1.75,
        fat_suppression=0.0, matrix=128, pixel_mm=1.3, slice_mm=3.6, blur_mm=0.4, endorectal=False, coil_depth_mm=75,
        coil_correction=0.85, coil_floor=0.15, noise=0.025, curve=1.0, shoulder=9.0, scale=420,
    ),
    MriSite(
        name="endorectal_15t", field_strength=1.5, repetition_time=4000, echo_time=125, fat_t2_factor=1.9,
        fat_suppression=0.0, matrix=144, pixel_mm=1.1, slice_mm=3.0, blur_mm=0.35, endorectal=True, coil_depth_mm=26,
        coil_correction=0.45, coil_floor=0.14, noise=0.03, curve=1.0, shoulder=2.2, scale=900,
    ),
    MriSite(
        name="fatsat_3t", field_strength=3.0, repetition_time=3400, echo_time=145, fat_t2_factor=1.5,
        fat_suppression=0.6, matrix=120, pixel_mm=1.4, slice_mm=2.8, blur_mm=0.5, endorectal=False, coil_depth_mm=70,
        coil_correction=0.5, coil_floor=0.15, noise=0.02, curve=0.8, shoulder=9.0, scale=300,
    ),
    MriSite(
        name="short_echo_15t", field_strength=1.5, repetition_time=2200, echo_time=80, fat_t2_factor=2.5,
        fat_suppression=0.0, matrix=112, pixel_mm=1.6, slice_mm=3.4, blur_mm=0.9, endorectal=False, coil_depth_mm=55,
        coil_correction=0.4, coil_floor=0.15, noise=0.045, curve=1.15, shoulder=9.0, scale=240,
    ),
    MriSite(
        name="endorectal_3t", field_strength=3.0, repetition_time=4500, echo_time=112, fat_t2_factor=1.6,
        fat_suppression=0.0, matrix=144, pixel_mm=1.0, slice_mm=3.0, blur_mm=0.3, endorectal=True, coil_depth_mm=20,
        coil_correction=0.15, coil_floor=0.05, noise=0.02, curve=0.75, shoulder=2.0, scale=1500,
    ),
    MriSite(
        name="flat_endorectal_15t", field_strength=1.5, repetition_time=3000, echo_time=96, fat_t2_factor=2.1,
        fat_suppression=0.0, matrix=128, pixel_mm=1.4, slice_mm=3.6, blur_mm=0.6, endorectal=True, coil_depth_mm=34,
        coil_correction=0.6, coil_floor=0.16, noise=0.022, curve=0.8, shoulder=0.9, scale=600,
    ),
)  # fmt: skip
"""The source site first, then the unseen ones."""


@dataclass(frozen=True)
class Volume:
    """A rendered case.

    Attributes:
        image: int16, shape (columns, rows, slices), axes to the patient's left, posterior and superior.
        label: uint8, same shape: 0 background, 1 peripheral zone, 2 transition zone.
        spacing: mm along the axes.
    """

    image: NDArray[np.int16]
    label: NDArray[np.uint8]
    spacing: tuple[float, float, float]

    @property
    def affine(self) -> NDArray[np.float64]:
        """Voxel indices to millimetres in the RAS frame of NIfTI; the origin is the centre of the volume."""
        step = np.array([-self.spacing[0], -self.spacing[1], self.spacing[2]])
        centre = (np.array(self.image.shape) - 1) / 2
        affine = np.diag([*step, 1.0])
        affine[:3, 3] = -step * centre
        return affine


def tissue_signal(site: MriSite, tissue: str, echo_time: float | None = None) -> float:
    """Return the spin-echo signal PD (1 - exp(-TR/T1)) exp(-TE/T2) of a tissue at a site, 0-1."""
    low_t1, low_t2, high_t1, high_t2, density = TISSUES[tissue]
    t1, t2 = (low_t1, low_t2) if site.field_strength < 2 else (high_t1, high_t2)
    if tissue in FATTY:
        t2 *= site.fat_t2_factor
    echo = site.echo_time if echo_time is None else echo_time
    signal = density * (1.0 - np.exp(-site.repetition_time / t1)) * np.exp(-echo / t2)
    return float(signal * (1.0 - site.fat_suppression if tissue in FATTY else 1.0))


def coil_profile(site: MriSite, anatomy: Anatomy, rng: np.random.Generator) -> Array:
    """Return the sensitivity of the receive coil on the fine grid, 1 at the centre of the gland; shape (z, y, x).

    A surface array sits in front of and behind the pelvis; an endorectal coil lies at the front of the rectum and is
    combined with a weak body coil. Each element falls as (1 + (d / depth)^2)^(-3/2), the field of a current loop.
    """
    x, y, z = anatomy.x[None, None, :], anatomy.x[None, :, None], anatomy.z[:, None, None]
    depth = site.coil_depth_mm * (1.0 + site.jitter * rng.normal())
    if site.endorectal:
        places = [(anatomy.coil_x + rng.normal(0, 2.0), anatomy.coil_y, rng.normal(-2.0, 5.0), 1.0, 0.45)]
    else:
        tilt = rng.normal(0.0, 0.15)
        places = [(sign * 55.0, -105.0, 0.0, 1.0 + sign * tilt, 1.0) for sign in (-1, 1)]
        places += [(sign * 60.0, 105.0, 0.0, 0.9 - sign * tilt, 1.0) for sign in (-1, 1)]
    power = np.zeros((1, 1, 1), dtype=np.float32)
    for px, py, pz, gain, axial in places:
        square = ((x - px) ** 2 + (y - py) ** 2 + (axial * (z - pz)) ** 2) / depth**2
        power = power + np.float32(gain**2) * (1.0 + square) ** -3.0
    profile = np.sqrt(power) + np.float32(site.coil_floor)
    centre = tuple(size // 2 for size in profile.shape)
    return (profile / profile[centre]).astype(np.float32)


def _sample(field: Array, anatomy: Anatomy, planes: Array, pixels: tuple[Array, Array], thickness: float) -> Array:
    """Average the fine grid over each slice's thickness and interpolate at the pixel centres; shape (z, y, x)."""
    step_z, step = float(anatomy.z[1] - anatomy.z[0]), float(anatomy.x[1] - anatomy.x[0])
    # A slice profile with the full width at half maximum of the slice: sigma = width / 2.355.
    weights = np.exp(-0.5 * ((planes[:, None] - anatomy.z[None, :]) / max(thickness / 2.355, 0.4 * step_z)) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    slabs = np.tensordot(weights.astype(np.float32), field, axes=1)
    rows, columns = ((axis - anatomy.x[0]) / step for axis in pixels)
    for axis, position in ((1, rows), (2, columns)):
        low = np.clip(np.floor(position).astype(int), 0, field.shape[axis] - 2)
        part = np.clip(position - low, 0, 1).astype(np.float32)
        part = part[None, :, None] if axis == 1 else part[None, None, :]
        slabs = np.take(slabs, low, axis) * (1 - part) + np.take(slabs, low + 1, axis) * part
    return slabs.astype(np.float32)


def _site_grid(site: MriSite, anatomy: Anatomy, rng: np.random.Generator) -> tuple[Array, tuple[Array, Array]]:
    """Return slice positions and (row, column) positions, mm: about one slice beyond apex and base."""
    count = int(np.ceil(anatomy.parameters.height / site.slice_mm)) + 1
    planes = (np.arange(count) - (count - 1) / 2 + rng.uniform(-0.3, 0.3)) * site.slice_mm
    axis = (np.arange(site.matrix) - (site.matrix - 1) / 2) * site.pixel_mm
    # The fine grid is 3 mm wider than the largest field of view on each side; positions are kept within it.
    shift = np.clip(rng.normal(0.0, site.shift_mm, 2), -8.0, 8.0)
    return planes.astype(np.float32), ((axis + shift[0]).astype(np.float32), (axis + shift[1]).astype(np.float32))


def render_volume(site: MriSite, anatomy: Anatomy, rng: np.random.Generator) -> Volume:
    """Render one case at one site; ``rng`` draws the position, the noise and the patient's share of the jitter."""
    echo = site.echo_time * (1.0 + site.jitter * rng.normal())
    unit = tissue_signal(PROSTATE_SITES[0], "fat")
    signal = np.zeros(anatomy.peripheral.shape, dtype=np.float32)
    # Each patient's tissues differ a little in relaxation and water content.
    level = {tissue: tissue_signal(site, tissue, echo) / unit * np.exp(0.06 * rng.normal()) for tissue in TISSUES}
    for layer in anatomy.layers:
        part = signal[layer.box]
        part += layer.occupancy * (np.float32(level[layer.tissue]) - part)
    planes, pixels = _site_grid(site, anatomy, rng)
    profile = coil_profile(site, anatomy, rng)
    sliced = _sample(signal, anatomy, planes, pixels, site.slice_mm)
    coil = _sample(profile, anatomy, planes, pixels, site.slice_mm)
    # The point spread includes what the reconstruction's window function takes from the nominal resolution.
    sigma = np.hypot(site.blur_mm, 0.35 * site.pixel_mm) / site.pixel_mm
    received = ndimage.gaussian_filter(sliced, (0, sigma, sigma)) * coil
    deviation = np.float32(site.noise * np.exp(1.5 * site.jitter * rng.normal()))
    noise = rng.standard_normal((2, *received.shape), dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, (0, 0, 0.45, 0.45)) / 0.62
    magnitude = np.hypot(received + deviation * noise[0], deviation * noise[1])
    picture = magnitude / coil**site.coil_correction
    picture = site.shoulder * (1.0 - np.exp(-picture / site.shoulder))
    picture = picture ** (site.curve * (1.0 + site.jitter * rng.normal()))
    image = np.clip(np.rint(picture * site.scale), 0, np.iinfo(np.int16).max).astype(np.int16)
    zones = [
        _sample(zone, anatomy, planes, pixels, 0.5 * site.slice_mm) for zone in (anatomy.peripheral, anatomy.transition)
    ]
    gland = zones[0] + zones[1] > 0.5
    label = np.where(gland, np.where(zones[1] >= zones[0], 2, 1), 0).astype(np.uint8)
    spacing = (site.pixel_mm, site.pixel_mm, site.slice_mm)
    return Volume(image.transpose(2, 1, 0).copy(), label.transpose(2, 1, 0).copy(), spacing)
