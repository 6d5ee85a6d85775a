"""Prostate-like pelvic anatomy: what is where, before any scanner sees it.

A case is a stack of soft layers (tissue, occupancy) on a fine grid, painted from the body inwards like layers of
paint, so that every voxel ends as a mixture of tissues: partial volume at each edge is part of the anatomy and not of a
scanner. `data_prep.phantom_sites` turns the mixture into a T2-weighted volume of one site.

Coordinates are millimetres from the centre of the gland: x to the patient's left, y to posterior, z to superior.

Sizes follow textbook anatomy: a gland of 40-60 mm in width and 20-100 ml in volume, peripheral zone behind and beside
the transition zone, which grows with age into nodules (McNeal, The zonal anatomy of the prostate, Prostate 1981); and
the zonal appearance described in PI-RADS v2.1 (Turkbey et al., European Urology 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from data_prep.phantom_shapes import Array, Layer, Painter, band, ellipse, smooth_union, soft

RectumContent = Literal["gas", "stool", "fluid", "collapsed", "balloon"]

BEYOND_GLAND_MM = 8.0
"""How far the fine grid reaches below the apex and above the base, mm."""


@dataclass(frozen=True)
class ProstateParameters:
    """Sizes of one case.

    Attributes:
        width: left-right diameter of the gland, mm.
        depth: front-back diameter of the gland, mm.
        height: apex to base, mm.
        squareness: exponent of the gland's superellipse, 2 is an ellipse.
        transition: size of the transition zone relative to its normal share of the gland, 1 is middle age.
        nodularity: number of nodules in the transition zone.
        lesion: whether the peripheral zone has a dark focus.
        peripheral_health: share of glandular tissue in the peripheral zone, 0-1 (the rest is stroma).
        rectum_radius: mm.
        rectum_content: what fills the rectum; "balloon" is an inflated endorectal coil.
        rectum_offset: lateral offset of the rectum, mm.
        bladder_radius: mm.
        pelvis_scale: width of the bony pelvis relative to the average.
        fat_scale: width of the fat planes relative to the average.
        bone_tilt: degrees by which the bones are turned.
    """

    width: float
    depth: float
    height: float
    squareness: float
    transition: float
    nodularity: int
    lesion: bool
    peripheral_health: float
    rectum_radius: float
    rectum_content: RectumContent
    rectum_offset: float
    bladder_radius: float
    pelvis_scale: float
    fat_scale: float
    bone_tilt: float


@dataclass(frozen=True)
class Anatomy:
    """One case as painted layers on the fine grid.

    Attributes:
        layers: from the bottom layer to the top one.
        peripheral: occupancy of the peripheral zone, shape (planes, rows, columns) = (z, y, x).
        transition: occupancy of the transition zone (with the central zone and the anterior stroma), same shape.
        x: column positions, mm. Rows have the same positions.
        z: plane positions, mm.
        coil_y: position of an endorectal coil behind the gland, mm; the coil lies at the front of the rectum.
        coil_x: lateral position of the coil, mm.
        parameters: the sizes.
    """

    layers: list[Layer]
    peripheral: Array
    transition: Array
    x: Array
    z: Array
    coil_x: float
    coil_y: float
    parameters: ProstateParameters


def draw_prostate(rng: np.random.Generator, *, endorectal: bool = False) -> ProstateParameters:
    """Draw the sizes of one case. An inflated endorectal coil flattens the gland by a tenth and distends the rectum."""
    growth = float(np.clip(rng.lognormal(0.02, 0.15), 0.85, 1.35))
    content: RectumContent = "balloon"
    filling = rng.choice(["gas", "stool", "fluid", "collapsed"], p=[0.3, 0.3, 0.1, 0.3])
    radius = {"gas": 14.0, "stool": 14.5, "fluid": 13.0, "collapsed": 9.5}[str(filling)] * rng.uniform(0.85, 1.25)
    balloon_radius = rng.uniform(16.0, 20.0)
    if not endorectal:
        content = str(filling)  # type: ignore[assignment]
    return ProstateParameters(
        width=float(51.0 * growth**0.75 * rng.uniform(0.94, 1.06)),
        depth=float(35.0 * growth * rng.uniform(0.93, 1.07) * (0.93 if endorectal else 1.0)),
        height=float(np.clip(38.0 * growth**0.6 * rng.uniform(0.93, 1.07), 34.0, 45.0)),
        squareness=float(rng.uniform(1.95, 2.5)),
        transition=float(np.clip(growth**0.7 * rng.uniform(0.85, 1.1), 0.75, 1.22)),
        nodularity=int(rng.integers(5, 13)),
        lesion=bool(rng.random() < 0.35),
        peripheral_health=float(rng.uniform(0.6, 1.0)),
        rectum_radius=float(balloon_radius if endorectal else radius),
        rectum_content=content,
        rectum_offset=float(rng.normal(0.0, 2.0)),
        bladder_radius=float(rng.uniform(24.0, 38.0)),
        pelvis_scale=float(rng.uniform(0.94, 1.08)),
        fat_scale=float(rng.uniform(0.7, 1.4)),
        bone_tilt=float(rng.normal(0.0, 5.0)),
    )


def _paint_body(c: Painter, p: ProstateParameters) -> None:
    """Skin, subcutaneous fat, the muscles and bones around the pelvis."""
    s, y, z = c.side / p.pelvis_scale, c.y, c.z
    body = ellipse(c.x, y, (0.0, 2.0), (175.0, 96.0), 0.0)
    cleft = ellipse(c.x, y, (0.0, 104.0), (3.5, 28.0))
    skin: Array = np.maximum(body, -cleft)
    outline = soft(skin)
    c.paint("fat", outline)
    c.paint("muscle", soft(np.abs(skin + 1.2) - np.float32(1.2)) * 0.8)
    # Septa and small vessels keep the fat from being flat.
    c.paint("fibrous", outline * np.clip(0.07 + 0.06 * c.coarse + 0.07 * c.fine, 0, 0.5))
    septa = np.exp(-((c.coarse / 0.16) ** 2)) * np.clip(c.fine, 0, 1)
    c.paint("fibrous", outline * 0.3 * septa)
    c.paint("fibrous", outline * 0.8 * np.clip(c.fine + 0.7 * c.coarse - 2.3, 0, 1))
    streak = np.sin((y * 0.9 + s * 0.45 + 4.0 * c.coarse) / 1.5)
    front = -p.depth / 2
    c.paint_muscle(
        smooth_union(band(s, y, (24.0, 72.0), (95.0, 60.0), 11.0), ellipse(s, y, (64.0, 70.0), (34.0, 15.0)), 5.0),
        streak,
    )
    c.paint_muscle(
        band(s, y, (22.0, front - 34.0), (100.0, front - 3.0), 11.0), np.sin((y - 0.5 * s + 3 * c.coarse) / 1.7)
    )
    c.paint_muscle(
        band(s, y, (20.0, front - 14.0), (96.0, front + 25.0), 11.0), np.sin((y - 0.6 * s + 3 * c.coarse) / 1.7)
    )
    c.paint_muscle(ellipse(s, y, (84.0, front - 28.0), (20.0, 15.0), 25.0))
    vessels = ellipse(s, y, (66.0, front - 42.0), (5.5, 5.0))
    c.paint("fibrous", soft(vessels - 1.0) * 0.8)
    c.paint("gas", soft(vessels) * 0.7)
    c.paint("vein", soft(ellipse(s, y, (54.0, front - 41.0), (5.5, 4.5))) * 0.8)
    _paint_bones(c, p, s, y, z, front)


def _paint_bones(c: Painter, p: ProstateParameters, s: Array, y: Array, z: Array, front: float) -> None:
    """Ischium, femur, pubic bones with their symphysis, and the obturator internus on the pelvic wall."""
    tilt = p.bone_tilt
    up = np.clip(z / 25.0, -1.0, 1.0)
    out = max(0.0, 0.5 * p.width - 25.0)
    front_part = band(s, y, (33.0 + out, -27.0), (45.0 + out, 8.0), 9.5)
    internus = smooth_union(front_part, band(s, y, (45.0 + out, 8.0), (40.0 + out, 42.0), 5.0), 9.0)
    c.paint_muscle(internus + 1.5 * np.clip(-up, 0, 1), np.sin((s + 0.2 * y + 3 * c.coarse) / 1.6))
    c.paint_bone(ellipse(s, y, (63.0 + out + 4.0 * up, 11.0 - 6.0 * up), (12.0, 19.0), 18.0 + tilt))
    c.paint_bone(ellipse(s, y, (93.0, 2.0 - 10.0 * up), (17.0, 17.0)) + 5.0 * np.clip(-up, 0, 1))
    lateral = 11.5 + 1.1 * np.clip(z - 6.0, 0, None) + 0.9 * np.clip(-z - 12.0, 0, None)
    pubis = ellipse(s, y, (lateral, front - 17.5 - 0.25 * z), (16.0, 10.5), 38.0 + tilt)
    c.paint_bone(pubis + 1.5 * np.clip(np.abs(up) - 0.4, 0, 1))
    symphysis = ellipse(s, y, (0.0, front - 20.0 - 0.25 * z), (2.6, 13.0)) + 12.0 * np.clip(z / 20.0 - 0.4, 0, 2)
    c.paint("fibrous", soft(symphysis))


def _gland_distance(c: Painter, p: ProstateParameters) -> tuple[Array, Array]:
    """Return the signed distances (mm) of the gland and of its transition zone."""
    t = np.clip(2.0 * c.z / p.height, -1.3, 1.3)
    # The apex tapers to a rounded tip, the base is blunter.
    power = np.where(t < 0, 1.9, 2.9)
    profile = np.sign(1 - np.abs(t) ** power) * np.abs(1 - np.abs(t) ** power) ** 0.5
    y = c.y - 0.10 * c.z
    # The rectum presses a shallow groove into the back of the gland.
    groove = 1.6 * np.exp(-((c.x / 8.0) ** 2)) * np.clip(y / 10.0, 0, 1)
    wide = np.float32(p.width / 2) * (1.0 - 0.10 * np.clip(-2 * y / p.depth, -1, 1))
    radius = (np.abs(c.x / wide) ** p.squareness + np.abs((y + groove) / (p.depth / 2)) ** p.squareness) ** (
        1 / p.squareness
    )
    gland = (radius - profile) * np.float32(min(p.width, p.depth) / 2)
    size = p.transition * np.clip(1.0 - ((t - 0.25) / 1.15) ** 2, 0.02, 1.0) ** 0.6
    lobe = ellipse(np.abs(c.x), y, (0.14 * p.width, -0.16 * p.depth), (0.215 * p.width, 0.335 * p.depth), -12.0)
    transition = lobe + np.float32(0.215 * p.width) * (1.0 - size)
    # At the base the central zone surrounds the ejaculatory ducts and reaches the back of the gland.
    central = ellipse(c.x, y, (0.0, 0.18 * p.depth), (0.24 * p.width, 0.22 * p.depth)) + 14.0 * np.clip(0.75 - t, 0, 1)
    return gland.astype(np.float32, copy=False), smooth_union(transition, central, 3.0).astype(np.float32, copy=False)


def _paint_gland(c: Painter, p: ProstateParameters, gland: Array, zone: Array) -> tuple[Array, Array]:
    """Paint both zones and what is in them; return the occupancies of the peripheral and the transition zone."""
    rng = c.rng
    y = c.y - 0.10 * c.z
    t = 2.0 * c.z / p.height
    inside = soft(gland)
    inner = inside * soft(zone)
    c.paint("fibrous", 0.55 * np.exp(-(((gland - 0.7) / 0.8) ** 2)))
    c.paint("peripheral", inside)
    radial = np.sin(7.0 * np.arctan2(y + 6.0, c.x) + 2.0 * c.coarse)
    disease = (1.0 - p.peripheral_health) * 0.7
    septa = np.clip(0.18 + disease + 0.12 * radial * c.fine + 0.14 * c.fine + 0.2 * c.coarse, 0, 0.9)
    c.paint("stroma", inside * septa)
    if p.lesion:
        angle = rng.uniform(0.15, 0.85) * np.pi
        spot = (0.38 * p.width * np.cos(angle), 0.37 * p.depth * np.sin(angle))
        blob = ellipse(c.x, y, spot, (rng.uniform(3.5, 6.5), rng.uniform(2.5, 4.0)), np.rad2deg(angle) - 90)
        c.paint("stroma", inside * soft(np.hypot(blob + 4.0, (c.z - rng.uniform(-8, 8)) * 0.7) - 4.0, 1.5) * 0.75)
    c.paint("transition", inner)
    c.paint("stroma", inner * np.clip(0.30 + 0.2 * c.coarse + 0.17 * c.fine, 0, 0.95))
    _paint_nodules(c, p, inner, y)
    c.paint("stroma", 0.7 * inside * np.exp(-((zone / 0.9) ** 2)))
    anterior = ellipse(c.x, y, (0.0, -0.43 * p.depth), (0.26 * p.width, 0.13 * p.depth))
    c.paint("stroma", inside * soft(anterior, 1.5) * 0.9)
    urethra = np.hypot(c.x, y - 0.02 * p.depth)
    low = np.clip(0.6 - 1.5 * t, 0, 1)
    c.paint("stroma", inside * soft(np.abs(urethra - 4.0) - 1.3) * 0.6 * low)
    c.paint("vein", inside * soft(urethra - 1.9) * 0.6 * low)
    peripheral = inside - inner
    return peripheral.astype(np.float32, copy=False), np.minimum(
        inside, inner + inside * soft(anterior) * (t > -0.75)
    ).astype(np.float32)


def _paint_nodules(c: Painter, p: ProstateParameters, inner: Array, y: Array) -> None:
    """Hyperplastic nodules: glandular ones bright, stromal ones dark, most with a dark pseudocapsule."""
    rng = c.rng
    for _ in range(p.nodularity):
        centre = (
            rng.uniform(-0.27, 0.27) * p.width,
            rng.uniform(-0.35, 0.15) * p.depth,
            rng.uniform(-0.25, 0.45) * p.height,
        )
        radius = rng.uniform(3.0, 7.5) * p.transition
        stretch, glandular, rim = rng.uniform(0.75, 1.3), rng.random() < 0.55, rng.uniform(0.2, 0.8)
        amount = rng.uniform(0.35, 0.9)
        planes = np.abs(c.z_axis - centre[2]) < radius + 2.0
        box = np.s_[planes]
        distance = np.sqrt(
            ((c.x[box] - centre[0]) / stretch) ** 2
            + ((y[box] - centre[1]) * stretch) ** 2
            + (c.z[box] - centre[2]) ** 2
        ) - np.float32(radius)
        core, shell = np.zeros(c.shape, dtype=np.float32), np.zeros(c.shape, dtype=np.float32)
        texture = np.clip(0.8 + 0.25 * c.fine[box] + 0.2 * c.coarse[box], 0, 1)
        core[box] = inner[box] * soft(distance, 0.9) * amount * texture
        shell[box] = inner[box] * np.exp(-((distance / 0.8) ** 2)) * rim
        c.paint("peripheral" if glandular else "stroma", core)
        c.paint("stroma", shell)


def _paint_rectum(c: Painter, p: ProstateParameters, centre_y: float) -> Array:
    """Paint rectum (anal canal below the apex) with its content; return its signed distance, mm."""
    low = np.clip((-c.z - 0.42 * p.height) / 10.0, 0, 1) * (0.3 if p.rectum_content == "balloon" else 1.0)
    radius = np.float32(p.rectum_radius) * (1.0 - 0.35 * low)
    x, y = c.x - p.rectum_offset, c.y - (centre_y + 0.12 * c.z * (p.rectum_content != "balloon"))
    aspect = 1.0 if p.rectum_content == "balloon" else 1.15
    angle = np.arctan2(y, x)
    fold = {"gas": 0.6, "stool": 0.5, "fluid": 0.6, "collapsed": 1.5, "balloon": 0.15}[p.rectum_content]
    wavy = fold * (np.sin(3 * angle + 0.12 * c.z) + 0.7 * np.sin(5 * angle + p.width) + 0.4 * c.coarse)
    outer = np.hypot(x * aspect, y / aspect) - radius
    wall = 2.2 if p.rectum_content == "balloon" else 3.4
    lumen = outer + wall + wavy
    c.paint("bowel_wall", soft(outer))
    c.paint("muscle", soft(np.abs(outer + 0.9) - 0.8) * 0.75)
    c.paint("peripheral", soft(np.abs(lumen - 0.9) - 0.7) * 0.5)
    if p.rectum_content == "collapsed":
        lumen = lumen + 3.0 + 0.9 * c.coarse
    content = {"gas": "gas", "balloon": "gas", "stool": "stool", "fluid": "urine", "collapsed": "stool"}[
        p.rectum_content
    ]
    filling = soft(lumen)
    c.paint(content, filling)
    if p.rectum_content in ("stool", "fluid"):
        c.paint("gas", filling * np.clip(0.25 + 0.45 * c.coarse + 0.2 * c.fine, 0, 1) * 0.8)
        c.paint("gas", filling * soft(y + 0.35 * radius, 0.8))
    c.paint("muscle", soft(outer) * low * 0.55)
    return outer.astype(np.float32, copy=False)


def _paint_floor(c: Painter, p: ProstateParameters, gland: Array, rectum_y: float) -> None:
    """Levator ani around gland and rectum, the veins and nerves between them and the gland."""
    rectum = np.hypot(c.x - p.rectum_offset, c.y - rectum_y) - np.float32(p.rectum_radius)
    hull = smooth_union(gland, rectum.astype(np.float32, copy=False), 14.0)
    gap = np.float32(2.6 + 2.2 * p.fat_scale) + 2.5 * np.clip(c.z / 20.0, -0.6, 2.0) + 0.7 * c.coarse
    # Below the gland the sling is thick (puborectalis) and leaves no fat beside the apex.
    thick = 3.2 * np.clip(-(c.z + 2.0) / 14.0, 0, 1)
    sling = soft(np.abs(hull - gap - thick) - thick - 1.9 - 0.6 * c.coarse, 1.0) * soft(-0.5 * p.depth - c.y, 5.0)
    within = soft(hull - gap)
    c.paint("fibrous", within * np.clip(0.2 + 0.2 * c.coarse + 0.2 * c.fine, 0, 0.8))
    plexus = soft(hull - gap + 1.5) * soft(-(gland - 0.8)) * (c.y < 0.25 * p.depth)
    c.paint("vein", plexus * np.clip(0.25 + 0.45 * c.fine, 0, 1))
    bundle = ellipse(c.side, c.y, (0.38 * p.width, 0.47 * p.depth), (4.5, 3.5), -35.0)
    c.paint("vein", soft(bundle, 1.2) * np.clip(0.35 + 0.5 * c.fine, 0, 1))
    c.paint("fibrous", soft(bundle, 1.2) * np.clip(-0.1 - 0.5 * c.fine, 0, 0.7))
    c.paint("muscle", 0.88 * sling)
    c.paint("fat", sling * np.clip(0.3 * c.fine + 0.3 * c.coarse - 0.2, 0, 0.5))


def _paint_base(c: Painter, p: ProstateParameters) -> None:
    """Bladder above the base and seminal vesicles behind it."""
    top = p.height / 2
    centre_z = top + 0.72 * p.bladder_radius
    radius = p.bladder_radius
    distance = np.sqrt((c.x * 0.85) ** 2 + ((c.y + 0.30 * p.depth) * 1.15) ** 2 + (c.z - centre_z) ** 2) - np.float32(
        radius
    )
    c.paint("muscle", soft(distance - 3.0) * 0.85)
    c.paint("urine", soft(distance))
    vesicle = ellipse(c.side, c.y, (15.0, 0.42 * p.depth), (15.0, 5.0), -14.0) + 7.0 * np.clip(
        (top + 1.0 - c.z) / 6.0, 0, 2
    )
    c.paint("bowel_wall", soft(vesicle))
    c.paint("urine", soft(vesicle + 0.8) * np.clip(0.35 + 0.55 * c.fine, 0, 1) * 0.8)


def build_prostate(p: ProstateParameters, rng: np.random.Generator) -> Anatomy:
    """Paint one case. ``rng`` places nodules, textures and irregularities; the sizes come from ``p``."""
    c = Painter(p.height / 2 + BEYOND_GLAND_MM, rng)
    rectum_y = p.depth / 2 + p.rectum_radius + 2.0
    _paint_body(c, p)
    pelvis = c.window(75.0)
    gland, zone = _gland_distance(pelvis, p)
    _paint_floor(pelvis, p, gland, rectum_y)
    _paint_base(c.window(54.0), p)
    _paint_rectum(pelvis, p, rectum_y)
    centre = c.window(44.0)
    inside = centre.within(pelvis)
    peripheral, transition = _paint_gland(centre, p, gland[inside], zone[inside])
    # The anterior stroma belongs to the transition zone's label.
    peripheral = np.clip(peripheral - np.clip(transition + peripheral - soft(gland[inside]), 0, 1), 0, 1)
    zones = [np.zeros(c.shape, dtype=np.float32) for _ in range(2)]
    for full, part in zip(zones, (peripheral, transition), strict=True):
        full[centre.box] = part
    return Anatomy(c.layers, zones[0], zones[1], c.x_axis, c.z_axis, p.rectum_offset, p.depth / 2 + 6.0, p)
