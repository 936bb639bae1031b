"""What the simulated shop sells: words, from which titles are made."""

# ruff: noqa: E501 - a table, one row a line

from typing import NamedTuple


class Topic(NamedTuple):
    """A corner of a category: prices run from `low` to `high`; a title is maker, quality and noun."""

    category: str
    name: str
    low: float
    high: float
    nouns: tuple[str, ...]
    qualities: tuple[str, ...]


def _topic(category: str, name: str, low: float, high: float, nouns: str, qualities: str) -> Topic:
    return Topic(category, name, low, high, tuple(nouns.split(", ")), tuple(qualities.split(", ")))


TOPICS: tuple[Topic, ...] = (
    _topic("Outdoors", "hiking", 15, 240, "hiking boots, trekking poles, day pack, rain jacket, gaiters", "all-weather, lightweight, alpine, recycled"),
    _topic("Outdoors", "camping", 9, 420, "two-person tent, sleeping bag, camp stove, lantern, folding chair", "compact, ultralight, family, three-season"),
    _topic("Outdoors", "climbing", 8, 190, "climbing rope, harness, chalk bag, quickdraw set, climbing shoes", "all-round, gym, big-wall, beginner's"),
    _topic("Outdoors", "paddling", 20, 690, "dry bag, touring paddle, life vest, inflatable kayak, spray deck", "sea, river, packable, junior"),
    _topic("Outdoors", "birdwatching", 12, 380, "binoculars, nest box, field guide, seed feeder, spotting scope", "woodland, classic, travel, premium"),
    _topic("Cycling", "road cycling", 7, 320, "bib shorts, road tyre, cycling jersey, bottle cage, clipless pedals", "race, summer, endurance, winter"),
    _topic("Cycling", "mountain biking", 9, 280, "trail helmet, dropper post, knee pads, wide handlebar, mud tyre", "trail, enduro, downhill, all-mountain"),
    _topic("Cycling", "commuting", 6, 160, "bike light set, folding lock, pannier bag, mudguard set, rain cape", "city, reflective, quick-release, slim"),
    _topic("Cycling", "bike workshop", 4, 140, "chain tool, torque wrench, repair stand, tyre lever set, track pump", "workshop, travel, steel, professional"),
    _topic("Kitchen", "coffee", 5, 520, "burr grinder, pour-over dripper, espresso cup set, moka pot, milk jug", "matte, everyday, hand-finished, barista's"),
    _topic("Kitchen", "baking", 4, 130, "proofing basket, loaf tin, crème brûlée torch, rolling pin, piping set", "classic, professional, home baker's, starter"),
    _topic("Kitchen", "knives", 18, 290, "chef's knife, paring knife, bread knife, whetstone, knife block", "damascus, forged, everyday, walnut"),
    _topic("Kitchen", "cookware", 15, 340, "cast-iron pan, sauté pan, stock pot, wok, casserole", "enamelled, induction, pre-seasoned, 28 cm"),
    _topic("Kitchen", "tea", 5, 110, "gaiwan, teapot, matcha whisk, tea tin, gooseneck kettle", "hand-glazed, travel, ceremonial, everyday"),
    _topic("Pantry", "hot sauces", 4, 32, "jalapeño sauce, chilli oil, smoked paprika paste, chipotle rub, kimchi base", "fermented, extra hot, small-batch, mild"),
    _topic("Pantry", "chocolate", 3, 45, "dark bar, hazelnut spread, truffle box, cocoa nibs, drinking chocolate", "single-origin, salted, vegan, orange"),
    _topic("Pantry", "pasta & grains", 2, 28, "bronze-cut pasta, arborio rice, red lentils, polenta, couscous", "organic, slow-dried, stone-milled, family-size"),
    _topic("Pantry", "preserves", 3, 26, "apricot jam, pickled beetroot, quince jelly, olive tapenade, heather honey", "low-sugar, farmhouse, spiced, old-recipe"),
    _topic("Home", "lighting", 14, 310, "desk lamp, floor lamp, pendant shade, bedside lamp, LED strip", "dimmable, brass, warm-white, adjustable"),
    _topic("Home", "bedding", 12, 260, "duvet cover, wool blanket, feather pillow, fitted sheet, quilt", "linen, king-size, stonewashed, allergy-friendly"),
    _topic("Home", "storage", 6, 190, "shelf unit, woven basket, shoe rack, wall hook set, under-bed box", "bamboo, stackable, slim, oak"),
    _topic("Home", "cleaning", 3, 380, "robot vacuum, glass cloth set, floor mop, descaler, lint brush", "quiet, refillable, everyday, professional"),
    _topic("Garden", "vegetable growing", 2, 85, "tomato seeds, raised bed, seed tray, cold frame, bean poles", "heirloom, early, hardy, balcony"),
    _topic("Garden", "garden tools", 8, 230, "secateurs, border spade, hedge shears, hand trowel, leaf rake", "forged, ash-handled, telescopic, left-handed"),
    _topic("Garden", "houseplants", 5, 95, "monstera, terracotta pot, plant mister, peat-free compost, moss pole", "large, low-light, hanging, starter"),
    _topic("Garden", "barbecue", 7, 640, "kettle grill, pizza stone, meat thermometer, charcoal starter, grill tongs", "family, travel, stainless, professional"),
    _topic("Audio", "headphones", 19, 430, "over-ear headphones, earbuds, headphone stand, ear pads, balanced cable", "studio, wireless, foldable, reference"),
    _topic("Audio", "hi-fi", 25, 980, "bookshelf speakers, phono preamp, stereo amplifier, speaker stands, network streamer", "two-way, valve, walnut, compact"),
    _topic("Audio", "vinyl", 6, 490, "turntable, record brush, record crate, slip mat, stylus", "portable, anti-static, audiophile, vintage"),
    _topic("Audio", "home recording", 12, 560, "condenser microphone, audio interface, pop filter, MIDI keyboard, boom arm", "studio, travel, USB-C, broadcast"),
    _topic("Computing", "keyboards", 15, 260, "mechanical keyboard, keycap set, wrist rest, switch pack, coiled cable", "tenkeyless, silent, low-profile, retro"),
    _topic("Computing", "home office", 9, 520, "monitor arm, laptop stand, web camera, docking station, standing desk", "height-adjustable, aluminium, dual-screen, oak"),
    _topic("Computing", "networking", 11, 340, "mesh router, patch cable set, PoE switch, travel router, wall access point", "tri-band, eight-port, indoor, business"),
    _topic("Computing", "gaming", 14, 390, "gaming mouse, headset, controller, mouse mat, capture card", "ultralight, wireless, low-latency, tournament"),
    _topic("Photo", "lenses", 70, 1400, "50 mm prime, wide-angle lens, macro lens, telephoto zoom, lens hood", "weather-sealed, manual, compact, full-frame"),
    _topic("Photo", "bags & tripods", 12, 420, "travel tripod, camera sling, padded insert, ball head, camera strap", "carbon, travel, quick-release, modular"),
    _topic("Photo", "film", 7, 180, "black-and-white film, developing tank, film scanner holder, changing bag, fixer", "medium-format, fine-grain, starter, bulk"),
    _topic("Books", "crime novels", 6, 28, "harbour murder mystery, detective novel, courtroom thriller, cold-case novel, heist novel", "Nordic, prize-winning, pocket-edition, debut"),
    _topic("Books", "science", 9, 48, "history of numbers, field notes on oceans, brain primer, star atlas, genetics reader", "illustrated, revised, pocket-edition, annotated"),
    _topic("Books", "fantasy", 7, 36, "dragon saga, witch chronicle, map-maker's tale, ice-kingdom trilogy, city-of-bridges novel", "epic, gentle, boxed, long-awaited"),
    _topic("Books", "cookbooks", 10, 52, "noodle cookbook, bread book, vegetable cookbook, Levantine table, weeknight suppers", "step-by-step, seasonal, award-winning, regional"),
    _topic("Games", "board games", 11, 120, "co-operative board game, worker-placement game, tile-laying game, deduction game, campaign game", "two-player, award-winning, family, quick"),
    _topic("Games", "puzzles", 6, 64, "1,000-piece puzzle, wooden puzzle, twisty cube, puzzle mat, logic box", "panorama, night-sky, magnetic, beginner's"),
    _topic("Games", "miniatures", 4, 150, "paint set, figure kit, wash trio, detail brush set, terrain kit", "starter, fantasy, master's, ruined-city"),
    _topic("Fitness", "running", 8, 210, "running shoes, running belt, reflective vest, compression socks, head torch", "trail, race-day, winter, high-visibility"),
    _topic("Fitness", "strength", 9, 460, "kettlebell, adjustable dumbbell, resistance band set, pull-up bar, lifting belt", "competition, adjustable, home-gym, heavy"),
    _topic("Fitness", "yoga", 7, 130, "yoga mat, cork block, bolster, yoga strap, meditation cushion", "natural, extra-thick, travel, organic"),
    _topic("Fitness", "swimming", 6, 140, "swim goggles, swim cap, pull buoy, kickboard, wetsuit", "open-water, junior, training, race"),
    _topic("Baby & child", "building toys", 7, 140, "wooden block set, marble run, train set, magnetic tiles, crane kit", "100-piece, starter, rainbow, expansion"),
    _topic("Baby & child", "nursery", 8, 290, "swaddle set, baby monitor, nightlight, changing mat, baby carrier", "muslin, breathable, star-print, organic"),
    _topic("Baby & child", "crafts", 3, 58, "finger paints, origami set, bead box, modelling clay, sticker book", "washable, giant, glow-in-the-dark, party"),
    _topic("Pets", "dogs", 5, 160, "dog harness, chew toy, dog bed, lead, training treats", "no-pull, orthopaedic, puppy, senior"),
    _topic("Pets", "cats", 4, 190, "scratching post, cat fountain, feather wand, litter mat, window perch", "sisal, quiet, kitten, extra-tall"),
    _topic("Pets", "aquarium", 6, 330, "canister filter, plant light, aquarium heater, aquasoil, driftwood", "nano, planted-tank, silent, 60-litre"),
    _topic("Craft", "knitting", 4, 88, "merino yarn, circular needles, sock yarn, stitch marker set, pattern book", "hand-dyed, merino, chunky, Fair Isle"),
    _topic("Craft", "sewing", 3, 410, "sewing machine, fabric shears, bias tape, quilting ruler, cutting mat", "heavy-duty, quilter's, travel, professional"),
    _topic("Craft", "watercolour", 5, 130, "watercolour pan set, cold-press pad, mop brush, mixing palette, masking fluid", "travel, artist-grade, student, 24-colour"),
    _topic("Craft", "woodworking", 7, 360, "block plane, chisel set, marking gauge, dovetail saw, beeswax polish", "low-angle, Japanese, brass-backed, apprentice's"),
    _topic("Beauty", "skin care", 5, 78, "face serum, sun lotion, clay mask, night cream, cleansing balm", "fragrance-free, SPF 50, hyaluronic, oat"),
    _topic("Beauty", "shaving", 4, 120, "safety razor, shaving brush, shaving soap, alum block, beard oil", "butterfly, sandalwood, vegan, travel"),
)  # fmt: skip

MAKERS: tuple[str, ...] = (
    "Northfold", "Halden", "Brisk & Pine", "Ostara", "Kestrel Works", "Lumengard", "Marrow", "Tidewell", "Oakline",
    "Sable & Rue", "Vireo", "Quarrymoor", "Elmstead", "Pico", "Granby", "Solveig", "Tern", "Wexley", "Aurelo", "Bracken",
    "Corvid", "Dunmore", "Fennick", "Gülden", "Hollin", "Isarna", "Juniper Row", "Korrel", "Løve", "Mistral & Co",
)  # fmt: skip

VARIANTS: tuple[str, ...] = (
    "slate", "moss", "sand", "indigo", "rust", "chalk", "plum", "mustard", "teal", "graphite", "set of two", "large",
    "small", "second edition", "gift box", "limited run",
)  # fmt: skip

NAMES: tuple[str, ...] = (
    "ada", "bao", "chidi", "dalia", "emre", "freya", "goran", "hana", "ines", "jonas", "kofi", "leila", "mira", "noor",
    "otto", "priya", "quinn", "rosa", "sven", "tomás", "uma", "vera", "wren", "xiu", "yusuf", "zoë",
)  # fmt: skip
