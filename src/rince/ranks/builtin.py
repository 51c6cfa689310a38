"""Class trees of well-known data sets, as nested dicts of names."""

from __future__ import annotations

# The 20 superclasses of 5 classes of CIFAR-100 (Krizhevsky, "Learning Multiple Layers of Features
# from Tiny Images", 2009), with the spelling of its meta file. Fine and coarse labels are the
# alphabetical positions of these names.
CIFAR100 = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}

# Fashion-MNIST's ten classes in label order (Xiao et al., arXiv 1708.07747; torchvision's names).
# The data set has no superclasses. These are ours, by what is worn where and easily confused;
# trousers, dress and bag resemble nothing else and stand alone (no rank-2 partner).
FASHION_MNIST = (
    ("tops", "T-shirt/top"),
    ("Trouser",),
    ("tops", "Pullover"),
    ("Dress",),
    ("tops", "Coat"),
    ("footwear", "Sandal"),
    ("tops", "Shirt"),
    ("footwear", "Sneaker"),
    ("Bag",),
    ("footwear", "Ankle boot"),
)
