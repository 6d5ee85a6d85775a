"""Optic disc anatomy of the embedded fundus phantom: what reflects and absorbs light, before any camera sees it.

A case is a map of reflectance in red, green and blue with the retina, the choroid, the disc with its cup, and a
separate map of the blood in front of it. `data_prep.phantom_cameras` turns the maps into the picture of one camera.

Coordinates are pixels of a square window around the disc; the diameter of a disc is about 1.8 mm (Quigley et al.,
Archives of Ophthalmology 1990), so that a pixel is about 16 micrometres. Red reflectance of the fundus is several times
the green and the green exceeds the blue because of melanin and haemoglobin (Delori and Pflibsen, Applied Optics 1989).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Array = NDArray[np.float32]

SIZE = 256
"""Side of the picture, px."""
BLOOD = np.array([0.32, 1.25, 1.05], dtype=np.float32)
"""Optical density of a wide vein in red, green and blue (haemoglobin absorbs green and blue most)."""


@dataclass(frozen=True)
class FundusParameters:
    """Sizes and pigments of one eye.

    Attributes:
        side: +1 when the macula is at the right of the picture, -1 at the left.
        centre: disc centre (x, y), px.
        disc_radius: vertical radius of the disc, px.
        disc_aspect: horizontal over vertical diameter of the disc.
        disc_turn: tilt of the disc's axis, degrees.
        cup_ratio: vertical cup-to-disc ratio, 0-1.
        cup_offset: displacement of the cup towards the macula, share of the disc radius.
        cup_depth: how much paler than the rim the cup is, 0-1.
        cup_edge: half-width of the slope between rim and cup, px.
        melanin: pigment of the retina and choroid, 0 fair to 1 dark.
        tessellation: visibility of the choroidal vessels, 0-1.
        atrophy: width of the pale peripapillary crescent, share of the disc radius; 0 is none.
        pallor: paleness of the rim, 0-1.
        vessel_scale: calibre of the vessels relative to the average.
    """

    side: int
    centre: tuple[float, float]
    disc_radius: float
    disc_aspect: float
    disc_turn: float
    cup_ratio: float
    cup_offset: float
    cup_depth: float
    cup_edge: float
    melanin: float
    tessellation: float
    atrophy: float
    pallor: float
    vessel_scale: float


@dataclass(frozen=True)
class Eye:
    """One eye as maps over the window.

    Attributes:
        reflectance: (3, SIZE, SIZE), 0-1, of retina, choroid and disc without blood vessels.
        blood: (SIZE, SIZE), thickness of blood in front, 1 is a wide vein.
        reflex: (SIZE, SIZE), 0-1, light streak on the arteries.
        label: (SIZE, SIZE), uint8: 0 background, 1 rim, 2 cup.
        parameters: the sizes.
    """

    reflectance: Array
    blood: Array
    reflex: Array
    label: NDArray[np.uint8]
    parameters: FundusParameters


def draw_fundus(rng: np.random.Generator) -> FundusParameters:
    """Draw one eye. Cup-to-disc ratios cover normal and glaucomatous discs, as in the challenge data."""
    return FundusParameters(
        side=int(rng.choice([-1, 1])),
        centre=(
            SIZE / 2 + float(np.clip(rng.normal(0, 7), -15, 15)),
            SIZE / 2 + float(np.clip(rng.normal(0, 7), -15, 15)),
        ),
        disc_radius=float(np.clip(rng.normal(61, 7), 45, 78)),
        disc_aspect=float(rng.uniform(0.84, 1.02)),
        disc_turn=float(rng.normal(0, 12)),
        cup_ratio=float(np.clip(rng.normal(0.54, 0.13), 0.28, 0.8)),
        cup_offset=float(rng.uniform(0.0, 0.2)),
        cup_depth=float(rng.uniform(0.6, 1.0)),
        cup_edge=float(rng.uniform(2.5, 8.0)),
        melanin=float(np.clip(rng.beta(2.5, 2.5), 0.05, 0.95)),
        tessellation=float(rng.beta(1.3, 2.2)),
        atrophy=float(rng.uniform(0.08, 0.4)) if rng.random() < 0.4 else 0.0,
        pallor=float(rng.beta(1.6, 2.5)),
        vessel_scale=float(rng.uniform(0.85, 1.2)),
    )


def smooth_noise(rng: np.random.Generator, sigma: float, size: int = SIZE) -> Array:
    """Return a smooth random field of unit variance with correlation length ``sigma`` px."""
    pitch = max(1, int(sigma / 2))
    coarse = rng.standard_normal((size // pitch + 3, size // pitch + 3)).astype(np.float32)
    coarse = ndimage.gaussian_filter(coarse, sigma / pitch, mode="wrap")
    field = ndimage.zoom(coarse, pitch, order=1)[:size, :size] if pitch > 1 else coarse[:size, :size]
    return ((field - field.mean()) / field.std()).astype(np.float32)


def _outline(p: FundusParameters, rng: np.random.Generator, x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Return signed distances (px, negative inside) of disc and cup, and the angle from the macula's side."""
    turn = np.deg2rad(p.disc_turn)
    u, v = x - p.centre[0], y - p.centre[1]
    along = (u * np.cos(turn) + v * np.sin(turn)) / p.disc_aspect
    across = v * np.cos(turn) - u * np.sin(turn)
    angle = np.arctan2(across, along * p.side)
    wave = sum(rng.normal(0, 0.045 / k) * np.cos(k * angle + rng.uniform(0, 6.28)) for k in range(2, 6))
    disc = (np.hypot(along, across) / (1.0 + wave) - p.disc_radius) * np.float32(min(1.0, p.disc_aspect))
    cup_radius = p.cup_ratio * p.disc_radius
    # The rim is broadest below, then above, then nasal, then temporal: the cup leans to the macula's side.
    shift = min(p.cup_offset, 0.85 - p.cup_ratio) * p.disc_radius
    cu, cv = along * p.side - shift, across + 0.02 * p.disc_radius
    cup_wave = sum(rng.normal(0, 0.08 / k) * np.cos(k * angle + rng.uniform(0, 6.28)) for k in range(2, 5))
    cup = (np.hypot(cu / rng.uniform(0.95, 1.08), cv) / (1.0 + cup_wave) - cup_radius).astype(np.float32)
    # A cup never reaches beyond the rim, however the waves fall.
    return disc.astype(np.float32), np.maximum(cup, disc + 3.0).astype(np.float32), angle.astype(np.float32)


@dataclass(frozen=True)
class _Branch:
    """A vessel to be grown: position, width and the point it rises from in px, heading and turn a step in radians."""

    x: float
    y: float
    heading: float
    width: float
    bend: float
    artery: bool
    order: int
    stem: tuple[float, float] | None = None


def _trunks(p: FundusParameters, rng: np.random.Generator) -> list[_Branch]:
    """Return the roots of the central artery and vein: one of each to every quadrant, from the nasal side."""
    roots = []
    nasal = -p.side * 0.12 * p.disc_radius
    for artery in (False, True):
        x = p.centre[0] + nasal + rng.normal(0, 3.0) + (4.0 if artery else -3.0)
        y = p.centre[1] + rng.normal(0, 4.0)
        for vertical in (-1, 1):
            rise = vertical * rng.uniform(0.0, 0.28) * p.disc_radius
            for temporal in (1, -1):
                lean = rng.uniform(0.02, 0.5) if temporal > 0 else rng.uniform(0.15, 0.8)
                heading = np.arctan2(vertical * np.cos(lean), p.side * temporal * np.sin(lean))
                width = (
                    (9.8 if not artery else 7.4)
                    * p.vessel_scale
                    * (1.0 if temporal > 0 else 0.8)
                    * rng.uniform(0.85, 1.15)
                )
                # Temporal arcades curve around the macula, nasal vessels run straight.
                bend = p.side * vertical * (0.008 if temporal > 0 else 0.002) + rng.normal(0, 0.004)
                roots.append(
                    _Branch(
                        x + rng.normal(0, 2.5), y + rise, float(heading), float(width), float(bend), artery, 0, (x, y)
                    )
                )
    for _ in range(int(rng.integers(2, 5))):
        heading = (0.0 if p.side > 0 else np.pi) + rng.normal(0, 0.5)
        start = p.disc_radius * rng.uniform(0.2, 0.75)
        x, y = p.centre[0] + start * np.cos(heading), p.centre[1] + start * np.sin(heading)
        roots.append(
            _Branch(
                x,
                y,
                float(heading),
                float(rng.uniform(1.6, 2.6)),
                float(rng.normal(0, 0.01)),
                bool(rng.random() < 0.5),
                1,
            )
        )
    return roots


def _grow_vessels(p: FundusParameters, rng: np.random.Generator) -> tuple[Array, Array]:
    """Grow the vessel tree; return blood thickness and the arteries' light streak."""
    scale = 2
    blood = Image.new("F", (SIZE * scale, SIZE * scale), 0.0)
    reflex = Image.new("F", (SIZE * scale, SIZE * scale), 0.0)
    ink, streak = ImageDraw.Draw(blood), ImageDraw.Draw(reflex)
    queue = _trunks(p, rng)
    while queue:
        root = queue.pop(0)
        x, y, heading, width = root.x, root.y, root.heading, root.width
        wave, phase = rng.uniform(0.02, 0.085), rng.uniform(0, 6.28)
        points = [(x, y)]
        for step in range(90):
            heading += root.bend + wave * np.sin(step * 0.35 + phase) + rng.normal(0, 0.025)
            x, y = x + 3.0 * np.cos(heading), y + 3.0 * np.sin(heading)
            points.append((x, y))
            if not (-8 < x < SIZE + 8 and -8 < y < SIZE + 8):
                break
            if root.order < 3 and width > 1.7 and step > 4 and rng.random() < 0.035:
                side = rng.choice([-1, 1])
                share = rng.uniform(0.45, 0.75)
                queue.append(
                    _Branch(
                        x,
                        y,
                        heading + side * rng.uniform(0.4, 0.9),
                        width * share,
                        side * 0.004,
                        root.artery,
                        root.order + 1,
                    )
                )
                heading -= side * 0.15
                width *= (1 - share**3) ** (1 / 3) * 0.6 + 0.4
        path = [(scale * a, scale * b) for a, b in ([root.stem, *points] if root.stem else points)]
        density = (0.62 if root.artery else 0.9) * min(1.0, 0.35 + root.width / 9.0)
        ink.line(path, fill=density, width=max(1, round(scale * root.width * 0.8)), joint="curve")
        if root.artery and root.width > 2.5:
            streak.line(path, fill=1.0, width=max(1, round(scale * root.width * 0.25)), joint="curve")
    maps = [
        ndimage.gaussian_filter(np.asarray(image, dtype=np.float32), 1.5)[::scale, ::scale] for image in (blood, reflex)
    ]
    return maps[0], maps[1]


def _retina(p: FundusParameters, rng: np.random.Generator, disc: Array, angle: Array) -> Array:
    """Return the reflectance of retina and choroid around the disc, (3, SIZE, SIZE)."""
    fair, dark = np.array([0.60, 0.30, 0.13]), np.array([0.36, 0.155, 0.065])
    base = fair + (dark - fair) * p.melanin
    pigment = 0.05 * smooth_noise(rng, 14.0) + 0.05 * smooth_noise(rng, 40.0) + 0.025 * smooth_noise(rng, 2.5)
    # Choroidal vessels: wide reddish bands between darker pigment where melanin of the retina is thin.
    ridge = 1.0 - np.abs(smooth_noise(rng, 9.0)) * 1.3
    choroid = p.tessellation * np.clip(ridge, -1, 1)
    # The nerve fibre layer scatters light in the thick bundles above and below the disc.
    fibres = 0.06 * np.exp(-(((np.abs(angle) - 1.3) / 0.45) ** 2)) * np.exp(-np.clip(disc, 0, None) / 60.0)
    fibres = fibres * (1.0 + 0.5 * np.sin(40.0 * angle + 2.0 * smooth_noise(rng, 12.0)))
    weights = np.array([0.9, 1.0, 0.8])[:, None, None]
    texture = 1.0 + weights * pigment[None] + np.array([0.24, 0.10, 0.12])[:, None, None] * choroid[None]
    # Thick nerve tissue and scattered light make a paler, softer zone beside the disc.
    halo = 0.22 * np.exp(-np.clip(disc, 0, None) / rng.uniform(10.0, 30.0))
    retina = base[:, None, None] * (texture + halo[None]) + np.array([0.25, 0.8, 0.6])[:, None, None] * fibres[None]
    # Around the disc the layers are thicker, towards the macula pigment darkens the picture.
    macula = 0.18 * np.clip(np.cos(angle), 0, 1) * np.clip(disc / 110.0, 0, 1)
    retina = retina * (1.0 - np.array([0.7, 1.0, 1.0])[:, None, None] * macula[None])
    if p.atrophy > 0:
        width = p.atrophy * p.disc_radius * np.clip(np.cos(angle / 2.0 + rng.normal(0, 0.1)), 0, 1) ** 2.5
        zone = np.clip((width - disc) / 3.0 + 0.4 * smooth_noise(rng, 4.0), 0, 1) * (width > 2)
        sclera = np.array([0.70, 0.48, 0.27])[:, None, None] * (1.0 + 0.12 * smooth_noise(rng, 4.0)[None])
        retina = retina + (sclera - retina) * 0.6 * zone[None]
        border = np.exp(-(((disc - width - 2.0) / 3.5) ** 2)) * np.clip(np.cos(angle), 0, 1) * (width > 2)
        retina = retina * (1.0 - 0.35 * border[None])
    return retina.astype(np.float32)


def build_eye(p: FundusParameters, rng: np.random.Generator) -> Eye:
    """Paint one eye. ``rng`` draws textures, outlines and the vessel tree; the sizes come from ``p``."""
    axis = np.arange(SIZE, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    disc, cup, angle = _outline(p, rng, x, y)
    reflectance = _retina(p, rng, disc, angle)
    rim = np.array([0.80, 0.43, 0.20]) + p.pallor * np.array([0.06, 0.14, 0.14])
    pale = np.array([0.95, 0.76, 0.48])
    # The nasal rim is thicker and redder than the temporal one.
    shade = 1.0 - 0.09 * np.clip(-np.cos(angle), 0, 1) + 0.03 * smooth_noise(rng, 6.0)
    # The rim slopes: paler towards the cup, redder and darker towards its edge, with spokes of nerve fibre bundles.
    slope = np.clip(-disc / (0.5 * p.disc_radius), 0, 1)
    spokes = 0.025 * np.sin(26.0 * angle + 3.0 * smooth_noise(rng, 15.0))
    tone = np.array([0.06, 0.12, 0.15])[:, None, None] * (slope - 0.45)[None]
    tissue = rim[:, None, None] * (shade + spokes)[None] * (1.0 + tone)
    depth = p.cup_depth * np.clip(0.5 - cup / (2.0 * p.cup_edge), 0, 1)
    pores = 0.045 * smooth_noise(rng, 1.8) * np.clip(-cup / 15.0, 0, 1) + 0.03 * smooth_noise(rng, 10.0)
    head = tissue + (pale[:, None, None] * (1.0 + pores[None]) - tissue) * depth[None]
    edge = rng.uniform(4.0, 9.0) * (1.0 - 0.45 * np.cos(angle))
    inside = ndimage.gaussian_filter(np.clip(0.5 - disc / edge, 0, 1), 1.0)
    reflectance = reflectance + (head - reflectance) * inside[None]
    # A thin ring of sclera or pigment often marks the edge of the disc.
    ring = np.exp(-(((disc - 2.5) / 2.0) ** 2)) * rng.uniform(-0.10, 0.10)
    reflectance = np.clip(reflectance * (1.0 + ring[None]), 0.01, 1.0).astype(np.float32)
    blood, reflex = _grow_vessels(p, rng)
    label = np.where(disc < 0, np.where(cup < 0, 2, 1), 0).astype(np.uint8)
    return Eye(reflectance, blood, reflex, label, p)
