"""Hand-written word tables: antonyms in three languages, agreement patterns, words for induction."""

from __future__ import annotations

LANGUAGES = ("en", "fr", "es")

# Antonym pairs: English, French, Spanish; "a/b" are the two ends. Adjectives stand in the masculine singular.
ANTONYM_TABLE = """
small/big|petit/grand|pequeño/grande
hot/cold|chaud/froid|caliente/frío
fast/slow|rapide/lent|rápido/lento
high/low|haut/bas|alto/bajo
rich/poor|riche/pauvre|rico/pobre
good/bad|bon/mauvais|bueno/malo
new/old|nouveau/vieux|nuevo/viejo
strong/weak|fort/faible|fuerte/débil
happy/sad|heureux/triste|feliz/triste
full/empty|plein/vide|lleno/vacío
open/closed|ouvert/fermé|abierto/cerrado
clean/dirty|propre/sale|limpio/sucio
easy/difficult|facile/difficile|fácil/difícil
long/short|long/court|largo/corto
wide/narrow|large/étroit|ancho/estrecho
heavy/light|lourd/léger|pesado/ligero
bright/dark|clair/sombre|claro/oscuro
day/night|jour/nuit|día/noche
black/white|noir/blanc|negro/blanco
true/false|vrai/faux|verdadero/falso
dry/wet|sec/mouillé|seco/mojado
thick/thin|épais/mince|grueso/delgado
sweet/bitter|doux/amer|dulce/amargo
brave/cowardly|courageux/lâche|valiente/cobarde
quiet/loud|silencieux/bruyant|silencioso/ruidoso
near/far|proche/lointain|cercano/lejano
public/private|public/privé|público/privado
first/last|premier/dernier|primero/último
left/right|gauche/droite|izquierda/derecha
love/hate|amour/haine|amor/odio
war/peace|guerre/paix|guerra/paz
life/death|vie/mort|vida/muerte
winter/summer|hiver/été|invierno/verano
north/south|nord/sud|norte/sur
beginning/end|début/fin|principio/fin
question/answer|question/réponse|pregunta/respuesta
friend/enemy|ami/ennemi|amigo/enemigo
man/woman|homme/femme|hombre/mujer
king/queen|roi/reine|rey/reina
boy/girl|garçon/fille|niño/niña
father/mother|père/mère|padre/madre
brother/sister|frère/sœur|hermano/hermana
buy/sell|acheter/vendre|comprar/vender
win/lose|gagner/perdre|ganar/perder
victory/defeat|victoire/défaite|victoria/derrota
truth/lie|vérité/mensonge|verdad/mentira
heaven/hell|ciel/enfer|cielo/infierno
sick/healthy|malade/sain|enfermo/sano
beautiful/ugly|beau/laid|hermoso/feo
""".strip()

# English nouns, singular and plural, for agreement of number across a distractor.
NOUN_TABLE = (
    "key/keys cabinet/cabinets dog/dogs cat/cats tree/trees house/houses bird/birds car/cars book/books table/tables "
    "door/doors window/windows chair/chairs farmer/farmers teacher/teachers pilot/pilots doctor/doctors river/rivers "
    "garden/gardens bridge/bridges"
)
PREPOSITIONS = ("near", "behind", "beside")
# cue word -> (verb for a singular subject, verb for a plural one)
VERBS = {"Today": ("is", "are"), "Yesterday": ("was", "were")}

# Nouns by gender, adjectives as masculine/feminine, for agreement of gender.
FRENCH_NOUNS = {
    "m": "livre chien jardin bateau mur chapeau pont stylo",
    "f": "maison fleur table porte voiture robe chaise lampe",
}
FRENCH_ADJECTIVES = "vert/verte bleu/bleue brun/brune rond/ronde joli/jolie neuf/neuve"
SPANISH_NOUNS = {
    "m": "libro perro barco muro sombrero puente coche zapato",
    "f": "casa flor mesa puerta silla falda camisa pared",
}
SPANISH_ADJECTIVES = "rojo/roja amarillo/amarilla morado/morada bonito/bonita redondo/redonda moderno/moderna"

# Words for the induction task: sequences of these with a repeat.
INDUCTION_WORDS = (
    "apple lemon piano violin copper silver rabbit turtle candle pencil basket hammer button ladder mirror needle "
    "pepper pillow ribbon rocket saddle spider ticket tunnel walnut zipper cactus carpet cherry cookie engine feather"
)


def antonym_words() -> list[dict[str, str]]:
    """One entry per concept: its word in each language. Concepts 2i and 2i+1 are each other's opposites."""
    concepts: list[dict[str, str]] = []
    for line in ANTONYM_TABLE.splitlines():
        ends = [cell.split("/") for cell in line.split("|")]
        concepts.extend({lang: ends[k][end] for k, lang in enumerate(LANGUAGES)} for end in (0, 1))
    return concepts


def noun_pairs() -> list[tuple[str, str]]:
    """English (singular, plural) pairs."""
    return [(one, many) for one, many in (pair.split("/") for pair in NOUN_TABLE.split())]
